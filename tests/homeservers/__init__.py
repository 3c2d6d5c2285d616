"""Tests for the homeserver that delegates authentication to this server."""
