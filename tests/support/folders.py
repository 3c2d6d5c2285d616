"""Folders for what a test writes."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase


def temporary_folder(case: SynchronousTestCase) -> Path:
    """A folder that trial clears away."""
    folder = Path(case.mktemp()).absolute()
    folder.mkdir()
    return folder
