"""What tests and benchmarks start and speak to: servers, clients, databases, directories."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
