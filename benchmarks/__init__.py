"""``python -m benchmarks`` measures this server side by side with what limits its speed."""
