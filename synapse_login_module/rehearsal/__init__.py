"""Walks through a login step by step and makes none: nothing is counted, linked or written."""
