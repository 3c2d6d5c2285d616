"""Servers, clients, databases and directories for tests and benchmarks."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
