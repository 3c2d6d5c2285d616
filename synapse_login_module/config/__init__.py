"""Reads YAML files into checked, frozen settings."""
