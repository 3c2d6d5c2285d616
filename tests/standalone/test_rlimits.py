"""Tests for how many files the process may have open."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.support.process import run

_PROGRAM = """
import resource, sys
soft, hard, connections = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from synapse_login_module.standalone.rlimits import room_for
print(room_for(connections), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


class RoomTests(SynchronousTestCase):
    """What is made of the limits of the process."""

    def room(self, soft: int, hard: int, connections: int) -> list[int]:
        """How many connections a process with these limits has room for, and its limits then."""
        numbers = (str(number) for number in (soft, hard, connections))
        done = run([sys.executable, "-c", _PROGRAM, *numbers])
        self.assertEqual(done.returncode, 0, done.stderr)
        return [int(number) for number in done.stdout.split()]

    def test_room_enough(self) -> None:
        """A limit that is high enough stays as it is."""
        self.assertEqual(self.room(700, 1000, 400), [400, 700, 1000])

    def test_raised(self) -> None:
        """One that is too low is raised as far as is needed."""
        self.assertEqual(self.room(300, 1000, 400), [400, 656, 1000])

    def test_no_more(self) -> None:
        """Where it cannot be raised so far, there are fewer connections."""
        self.assertEqual(self.room(300, 600, 2000), [344, 600, 600])
