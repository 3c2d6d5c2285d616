"""Wraps the password providers: a guard around each, and one chain of all."""
