"""Accounts that an HTTP service knows."""
