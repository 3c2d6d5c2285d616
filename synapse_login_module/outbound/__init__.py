"""Connections to other servers: HTTP, TLS, and circuit breakers."""
