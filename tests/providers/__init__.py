"""Tests for the password providers against real backends, and for the wrappers around them."""
