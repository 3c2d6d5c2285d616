"""Tests for the file of token keys."""

from __future__ import annotations

import base64
import errno
import os
import stat
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.common import filewatch
from synapse_login_module.errors import ConfigError
from synapse_login_module.tokens import keyfile
from synapse_login_module.tokens.format import KEY_SIZE, MAX_KEY_ID, KeyRing, TokenKind, parse
from tests.support.folders import temporary_folder

SALT = bytes(16)


def letters(letter: str) -> bytes:
    """A key that is easy to tell."""
    return letter.encode("ascii") * KEY_SIZE


def line(key_id: int, letter: str, *mark: str) -> str:
    """A line of a key file."""
    return " ".join([str(key_id), base64.b64encode(letters(letter)).decode("ascii"), *mark]) + "\n"


def made_under(ring: KeyRing, key_id: int) -> str:
    """A token by which to tell a key."""
    return ring.derive(TokenKind.ACCESS, key_id, 1, 0, SALT)


def expected(key_id: int, letter: str) -> str:
    """The same, from the key itself."""
    return made_under(KeyRing({key_id: letters(letter)}), key_id)


class KeyFileTestCase(SynchronousTestCase):
    """A folder for a key file."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.path = self.folder / "token.key"

    def write(self, text: str, mode: int = 0o600) -> None:
        """Put a key file there."""
        self.path.write_text(text, encoding="utf-8")
        self.path.chmod(mode)

    def mode(self) -> int:
        """The file's permissions."""
        return stat.S_IMODE(self.path.stat().st_mode)

    def files(self) -> list[str]:
        """What is in the folder."""
        return sorted(os.listdir(self.folder))

    def problem(self) -> str:
        """Why the file cannot be loaded; always one line that names it."""
        with self.assertRaises(ConfigError) as raised:
            keyfile.load(self.path)
        problem = str(raised.exception)
        self.assertIn(str(self.path), problem)
        self.assertNotIn("\n", problem)
        return problem


class MakeTests(KeyFileTestCase):
    """The first start."""

    def test_made(self) -> None:
        """A file that is not there is made, with one key, and read the same again."""
        ring = keyfile.load_or_make(self.path, lambda size: b"k" * size)
        self.assertEqual(ring.newest, 1)
        self.assertEqual(made_under(ring, 1), expected(1, "k"))
        self.assertEqual(made_under(keyfile.load(self.path), 1), expected(1, "k"))
        self.assertEqual(self.path.read_text("ascii"), line(1, "k"))

    def test_mode(self) -> None:
        """Only its owner may read it, whatever the umask."""
        self.addCleanup(os.umask, os.umask(0))
        keyfile.load_or_make(self.path, os.urandom)
        self.assertEqual(self.mode(), 0o600)

    def test_nothing_else_is_left(self) -> None:
        """No other file is left behind."""
        keyfile.load_or_make(self.path, os.urandom)
        self.assertEqual(self.files(), ["token.key"])

    def test_made_once(self) -> None:
        """A file that is there is read and left as it is."""
        self.write(line(3, "a"))
        ring = keyfile.load_or_make(self.path, os.urandom)
        self.assertEqual(made_under(ring, 3), expected(3, "a"))
        self.assertEqual(self.path.read_text("ascii"), line(3, "a"))

    def test_race(self) -> None:
        """Of two makers the first wins, and both use its key."""

        def overtaken(size: int) -> bytes:
            keyfile.load_or_make(self.path, lambda size: b"f" * size)
            return b"s" * size

        ring = keyfile.load_or_make(self.path, overtaken)
        self.assertEqual(made_under(ring, 1), expected(1, "f"))
        self.assertEqual(self.path.read_text("ascii"), line(1, "f"))
        self.assertEqual(self.files(), ["token.key"])

    def test_no_folder(self) -> None:
        """A folder that is not there is a mistake in the configuration."""
        with self.assertRaises(ConfigError) as raised:
            keyfile.load_or_make(self.folder / "missing" / "token.key", os.urandom)
        self.assertIn("missing", str(raised.exception))

    def test_disk_fails(self) -> None:
        """When the key cannot be put on the disk there is no file, not even half a one."""

        def fsync(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "fsync", fsync)
        with self.assertRaises(ConfigError) as raised:
            keyfile.load_or_make(self.path, os.urandom)
        self.assertIn("No space left", str(raised.exception))
        self.assertEqual(self.files(), [])


class FollowTests(KeyFileTestCase):
    """A ring that follows its file."""

    def setUp(self) -> None:
        super().setUp()
        self.write(line(1, "a"))
        self.ring = keyfile.load(self.path)

    def good(self, key_id: int, letter: str) -> bool:
        """Whether a token under this key is taken."""
        parsed = parse(TokenKind.ACCESS, expected(key_id, letter))
        assert parsed is not None
        return self.ring.verify(parsed, SALT)

    def test_rotated(self) -> None:
        """A token under a key that was added is taken, and new ones are made under it."""
        keyfile.rotate(self.path, lambda size: b"b" * size, now=True)
        self.assertEqual(self.ring.newest, 1)
        self.assertTrue(self.good(2, "b"))
        self.assertTrue(self.good(1, "a"))
        self.assertEqual(self.ring.newest, 2)

    def test_renewed(self) -> None:
        """Before a session begins the newest key is looked for, and one that is gone forgotten."""
        self.write(line(2, "b"))
        self.ring.renew()
        self.assertEqual(self.ring.newest, 2)
        self.assertFalse(self.good(1, "a"))

    def test_two_steps(self) -> None:
        """A new key checks tokens as soon as it is in the file, and makes them once activated."""
        self.assertEqual(keyfile.rotate(self.path, lambda size: b"b" * size), 2)
        self.ring.renew()
        self.assertEqual(self.ring.newest, 1)
        self.assertTrue(self.good(2, "b"))
        self.assertEqual(keyfile.activate(self.path), 2)
        self.ring.renew()
        self.assertEqual(self.ring.newest, 2)
        self.assertTrue(self.good(1, "a"))

    def test_asked_for(self) -> None:
        """A key that another process uses already is found by whoever asks for it."""
        self.assertFalse(self.ring.find(2))
        self.write(line(1, "a") + line(2, "b"))
        self.assertTrue(self.ring.find(2))

    def test_once_a_change(self) -> None:
        """However many tokens are of unknown keys, the file is read once for each change of it,
        and once where it is broken.
        """
        read: list[Path] = []
        opened = filewatch._open_at_once

        def watched(path: str, flags: int) -> int:
            read.append(Path(path))
            return opened(path, flags)

        self.patch(filewatch, "_open_at_once", watched)
        for _ in range(100):
            self.assertFalse(self.good(9, "x"))
        self.assertEqual(read, [])
        keyfile.rotate(self.path, lambda size: b"b" * size, now=True)
        read.clear()
        for _ in range(100):
            self.assertFalse(self.good(9, "x"))
            self.assertTrue(self.good(2, "b"))
        self.assertEqual(read, [self.path])
        self.write("nonsense")
        read.clear()
        for _ in range(100):
            self.assertFalse(self.good(9, "x"))
        self.assertEqual(read, [self.path])

    def test_read_in_vain(self) -> None:
        """One that could not be read for a moment is read as soon as it can be."""
        keyfile.rotate(self.path, lambda size: b"b" * size, now=True)

        def fail(path: Path, *_: Any) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

        patch = self.patch(filewatch, "_open_at_once", fail)
        self.assertFalse(self.good(2, "b"))
        patch.restore()
        self.assertTrue(self.good(2, "b"))

    def test_made_readable(self) -> None:
        """A file that everybody could read is taken up once its mode is mended."""
        self.path.unlink()
        self.write(line(2, "b"), 0o644)
        self.assertFalse(self.ring.find(2))
        self.path.chmod(0o600)
        self.assertTrue(self.ring.find(2))

    def test_broken(self) -> None:
        """While the file cannot be used the keys stay, and each problem is logged once."""
        for text, count in (("nonsense", 1), ("nonsense", 0), (line(1, "a"), 0), ("nonsense", 1)):
            self.write(text)
            with capturedLogs() as events:
                for _ in range(3):
                    self.ring.renew()
            self.assertEqual(len(events), count, events)
            self.assertTrue(self.good(1, "a"))


class LoadTests(KeyFileTestCase):
    """Reading the file."""

    def test_keys(self) -> None:
        """Every line is a key, in any order; empty lines and comments are none."""
        self.write(f"# the keys\n\n{line(7, 'b')}  \n{line(2, 'a')}")
        ring = keyfile.load(self.path)
        self.assertEqual(ring.newest, 7)
        self.assertEqual(made_under(ring, 2), expected(2, "a"))
        self.assertEqual(made_under(ring, 7), expected(7, "b"))

    def test_missing(self) -> None:
        """A file that is not there cannot be loaded, and is not made."""
        self.assertIn("cannot read", self.problem())
        self.assertEqual(self.files(), [])

    def test_folder(self) -> None:
        """A folder is no key file."""
        self.path.mkdir()
        self.assertIn("cannot read", self.problem())

    def test_open_to_others(self) -> None:
        """A file that everybody may read, write or execute is refused, and says what to do."""
        for mode in (0o604, 0o602, 0o601, 0o644, 0o666, 0o777):
            self.write(line(1, "a"), mode)
            self.assertIn("chmod 600", self.problem())

    def test_open_to_the_group(self) -> None:
        """A group may read it: service managers hand out secrets so."""
        for mode in (0o600, 0o400, 0o640):
            self.write(line(1, "a"))
            self.path.chmod(mode)
            self.assertTrue(keyfile.load(self.path).find(1))
            self.path.unlink()

    def test_new(self) -> None:
        """Of the keys without a mark the highest id signs; one must."""
        self.write(line(7, "b", "new") + line(2, "a") + line(1, "c"))
        ring = keyfile.load(self.path)
        self.assertEqual((ring.newest, set(ring.in_use)), (2, {1, 2}))
        self.assertTrue(ring.holds(7))
        self.write(line(7, "b", "new"))
        self.assertIn("no key that signs", self.problem())

    def test_malformed(self) -> None:
        """A line that is no key is refused by its number, and not shown."""
        secret = base64.b64encode(letters("s")).decode("ascii")
        for bad in (
            "nonsense",
            f"one {secret}",
            f"2{secret}",
            f"2\t{secret}",
            f"2 {secret}!",
            f"2 {secret} {secret}",
            f"2 {secret} old",
            f"2 {secret} new new",
            f"2 {secret}new",
            f"2 {secret[:-4]}",
            f"2 {secret[:-1]}",
            f"2 {secret}AAAA",
            "2",
            "2 ",
            f"-1 {secret}",
            f"{MAX_KEY_ID + 1} {secret}",
            f"1.5 {secret}",
        ):
            self.write(f"{line(1, 'a')}{bad}\n")
            problem = self.problem()
            self.assertIn("line 2", problem, bad)
            self.assertNotIn(secret[:20], problem)

    def test_duplicate(self) -> None:
        """Two keys of one id are refused, even when they are the same."""
        for letter in ("a", "b"):
            self.write(f"{line(1, 'a')}{line(2, 'c')}{line(1, letter)}")
            self.assertIn("line 3", self.problem())

    def test_empty(self) -> None:
        """A file without a key is refused, and never filled."""
        for text in ("", "\n\n", "# nothing\n"):
            self.write(text)
            self.assertIn("no key", self.problem())
            with self.assertRaises(ConfigError):
                keyfile.load_or_make(self.path, os.urandom)
            self.assertEqual(self.path.read_text("ascii"), text)

    def test_no_text(self) -> None:
        """A file that is no ASCII text is refused."""
        self.write(line(1, "a") + "é\n")
        self.assertIn("not a file of keys", self.problem())
        self.path.write_bytes(os.urandom(1) + bytes(range(256)))
        self.assertIn("not a file of keys", self.problem())


class RotateTests(KeyFileTestCase):
    """Adding a key."""

    def test_keeps_the_old_keys(self) -> None:
        """A new newest key is added, and the old ones stay as they were."""
        self.write(line(5, "b") + line(2, "a"))
        self.assertEqual(keyfile.rotate(self.path, lambda size: b"n" * size, now=True), 6)
        ring = keyfile.load(self.path)
        self.assertEqual(ring.newest, 6)
        for key_id, letter in ((2, "a"), (5, "b"), (6, "n")):
            self.assertEqual(made_under(ring, key_id), expected(key_id, letter))

    def test_mode(self) -> None:
        """The new file is its owner's alone, and nothing else is left."""
        self.addCleanup(os.umask, os.umask(0))
        self.write(line(1, "a"))
        keyfile.rotate(self.path, os.urandom)
        self.assertEqual(self.mode(), 0o600)
        self.assertEqual(self.files(), ["token.key"])

    def test_the_rest_stays(self) -> None:
        """Comments, empty lines and the order stay, whatever is done; so do mode and links."""
        other = "# ours, and nobody else's\n\n"
        self.write(other + line(5, "b") + "#5 was made in June\n" + line(2, "a"), 0o640)
        real = self.folder / "elsewhere"
        self.path.rename(real)
        self.path.symlink_to(real)
        keyfile.rotate(self.path, lambda size: b"n" * size)
        before = other + line(5, "b") + "#5 was made in June\n" + line(2, "a")
        self.assertEqual(self.path.read_text("ascii"), before + line(6, "n", "new"))
        keyfile.activate(self.path)
        self.assertEqual(self.path.read_text("ascii"), before + line(6, "n"))
        self.assertTrue(keyfile.remove(self.path, 2))
        rest = other + line(5, "b") + "#5 was made in June\n" + line(6, "n")
        self.assertEqual(self.path.read_text("ascii"), rest)
        self.assertEqual(self.mode(), 0o640)
        self.assertEqual(self.files(), ["elsewhere", "token.key"])
        self.assertTrue(self.path.is_symlink())

    def test_owner(self) -> None:
        """The file stays its owner's and its group's when root adds a key."""
        if os.geteuid() != 0:
            raise SkipTest("only root can give a file away")
        self.write(line(1, "a"), 0o640)
        os.chown(self.path, 12345, 54321)
        keyfile.rotate(self.path, os.urandom)
        keyfile.activate(self.path)
        status = self.path.stat()
        self.assertEqual((status.st_uid, status.st_gid), (12345, 54321))
        self.assertEqual(self.mode(), 0o640)

    def test_owner_cannot_be_kept(self) -> None:
        """Who may not keep the owner changes nothing: the server could not read the file."""

        def fchown(descriptor: int, owner: int, group: int) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        self.write(line(1, "a"))
        status = os.stat_result((*self.path.stat()[:4], 12345, *self.path.stat()[5:]))
        self.patch(os, "fchown", fchown)
        self.patch(keyfile, "read_file", lambda path, called: (status, path.read_bytes()))
        with self.assertRaises(ConfigError) as raised:
            keyfile.rotate(self.path, os.urandom)
        self.assertIn("as that user, or as root", str(raised.exception))
        self.assertEqual(self.path.read_text("ascii"), line(1, "a"))
        self.assertEqual(self.files(), ["token.key"])

    def test_taken(self) -> None:
        """A new key gets no id that another key has, or had."""
        self.write(line(1, "a"))
        self.assertEqual(keyfile.rotate(self.path, os.urandom, taken=[4, 2]), 5)

    def test_activate_nothing(self) -> None:
        """Where no key is new there is none to activate."""
        self.write(line(1, "a") + line(3, "b"))
        with self.assertRaises(ConfigError) as raised:
            keyfile.activate(self.path)
        self.assertIn("key 3", str(raised.exception))
        self.write(line(2, "a", "new") + line(3, "b"))
        with self.assertRaises(ConfigError):
            keyfile.activate(self.path)

    def test_remove(self) -> None:
        """The key that signs is not removed, nor one that is not there."""
        self.write(line(1, "a") + line(2, "b") + line(3, "c", "new"))
        with self.assertRaises(ConfigError) as raised:
            keyfile.remove(self.path, 2)
        self.assertIn("signs new tokens", str(raised.exception))
        self.assertFalse(keyfile.remove(self.path, 7))
        self.assertFalse(keyfile.remove(self.path, -1))
        self.assertTrue(keyfile.remove(self.path, 3))
        self.assertEqual(self.path.read_text("ascii"), line(1, "a") + line(2, "b"))

    def test_missing(self) -> None:
        """There is nothing to rotate without a file, and none is made."""
        with self.assertRaises(ConfigError):
            keyfile.rotate(self.path, os.urandom)
        self.assertEqual(self.files(), [])

    def test_no_id_left(self) -> None:
        """When the last id is used the file stays as it is."""
        self.write(line(MAX_KEY_ID, "a"))
        with self.assertRaises(ConfigError) as raised:
            keyfile.rotate(self.path, os.urandom)
        self.assertIn("no key id left", str(raised.exception))
        self.assertEqual(self.path.read_text("ascii"), line(MAX_KEY_ID, "a"))

    def test_crash(self) -> None:
        """Whatever fails on the way, the old file stands whole and nothing else is left."""

        def fail(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        for function in ("fsync", "replace"):
            self.write(line(1, "a"))
            patch = self.patch(os, function, fail)
            with self.assertRaises((OSError, ConfigError)):
                keyfile.rotate(self.path, os.urandom)
            patch.restore()
            self.assertEqual(self.path.read_text("ascii"), line(1, "a"))
            self.assertEqual(self.files(), ["token.key"])

    def test_written_before_it_is_put_in_place(self) -> None:
        """The new file is on the disk, whole, before it takes the old one's place; its name is
        there before it is used.
        """
        self.write(line(1, "a"))
        order: list[str] = []
        fsync, replace = os.fsync, os.replace

        def watched_fsync(descriptor: int) -> None:
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            order.append("fsync folder" if is_folder else "fsync")
            fsync(descriptor)

        def watched_replace(source: str, target: Path) -> None:
            order.append("replace")
            self.assertEqual(Path(source).read_text("ascii"), line(1, "a") + line(2, "n", "new"))
            replace(source, target)

        self.patch(os, "fsync", watched_fsync)
        self.patch(os, "replace", watched_replace)
        keyfile.rotate(self.path, lambda size: b"n" * size)
        self.assertEqual(order, ["fsync", "replace", "fsync folder"])
        order.clear()
        self.path.unlink()
        keyfile.load_or_make(self.path, os.urandom)
        self.assertEqual(order, ["fsync", "fsync folder"])
