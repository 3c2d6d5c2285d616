"""Runs inside Synapse. No other part imports ``synapse``."""
