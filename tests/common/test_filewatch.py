"""Tests for watching files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.common import filewatch
from synapse_login_module.common.filewatch import FileWatcher, Unreadable, read_file, stamp_of
from synapse_login_module.errors import ConfigError
from tests.support.folders import temporary_folder


class FileWatcherTests(SynchronousTestCase):
    """A file that says one word."""

    def setUp(self) -> None:
        self.path = temporary_folder(self) / "word"
        self.path.write_text("one")
        self.watcher = FileWatcher(self.path, self.read, stamp_of(self.path))

    @staticmethod
    def read(path: Path) -> str:
        """Read the file through the watcher."""
        word = read_file(path)[1].decode()
        if " " in word:
            raise ConfigError("", "more than a word")
        return word

    def test_changed(self) -> None:
        """A file is current until it changes, and again once it has been read."""
        self.assertTrue(self.watcher.is_current())
        self.path.write_text("other")
        self.assertFalse(self.watcher.is_current())
        self.assertEqual(self.watcher.read(), "other")
        self.assertTrue(self.watcher.is_current())
        self.path.chmod(0o600 if self.path.stat().st_mode & 0o077 else 0o644)
        self.assertFalse(self.watcher.is_current())

    def test_changed_while_reading(self) -> None:
        """A change while the file is read is noticed."""

        def read(path: Path) -> str:
            word = self.read(path)
            path.write_text("later")
            return word

        watcher = FileWatcher(self.path, read, None)
        self.assertEqual(watcher.read(), "one")
        self.assertTrue(watcher.has_changed())
        self.assertFalse(watcher.is_current())

    def test_pipe(self) -> None:
        """A pipe is no version of the file: nothing waits for a writer, and it is read once."""
        self.path.unlink()
        os.mkfifo(self.path)
        with self.assertRaises(ConfigError) as caught:
            self.watcher.read()
        self.assertEqual(str(caught.exception), "cannot read it: not a regular file")
        self.assertTrue(self.watcher.is_current())
        self.path.unlink()
        self.path.write_text("two")
        self.assertEqual(self.watcher.read(), "two")

    def test_broken(self) -> None:
        """A broken version is read once."""
        self.path.write_text("two words")
        with self.assertRaises(ConfigError):
            self.watcher.read()
        self.assertTrue(self.watcher.is_current())

    def test_missing(self) -> None:
        """A missing file is tried once, and read when it appears."""
        self.path.unlink()
        self.assertFalse(self.watcher.is_current())
        with self.assertRaises(Unreadable) as raised:
            self.watcher.read()
        self.assertEqual(str(raised.exception), "cannot read it: No such file or directory")
        self.assertTrue(self.watcher.is_current())
        self.path.write_text("back")
        self.assertFalse(self.watcher.is_current())
        self.assertEqual(self.watcher.read(), "back")

    def test_read_in_vain(self) -> None:
        """A file that is there and could not be read is tried again, even if it has not changed."""

        def fail(*_: Any) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

        self.path.write_text("other")
        patch = self.patch(filewatch, "_open_at_once", fail)
        for _ in range(2):
            with self.assertRaises(Unreadable):
                self.watcher.read()
            self.assertFalse(self.watcher.has_changed())
            self.assertFalse(self.watcher.is_current())
        patch.restore()
        self.assertEqual(self.watcher.read(), "other")
        self.assertTrue(self.watcher.is_current())
