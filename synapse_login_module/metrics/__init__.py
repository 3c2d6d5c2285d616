"""What this service counts and measures, and the page that Prometheus reads it from.

Only this room imports ``prometheus_client``, which is an extra: without it, counting does nothing.
"""
