"""``python -m benchmarks`` measures this server against what bounds it, side by side."""
