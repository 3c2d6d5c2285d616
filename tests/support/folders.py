"""Temporary folders for tests."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase


def temporary_folder(case: SynchronousTestCase) -> Path:
    """Make a folder that trial deletes."""
    folder = Path(case.mktemp()).absolute()
    folder.mkdir()
    return folder
