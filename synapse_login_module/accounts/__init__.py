"""Whose account is whose: links, and what becomes of an account that is gone."""
