"""Tests for the limit of open files."""

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
    """The connections for each limit of the process."""

    def room(self, soft: int, hard: int, connections: int) -> list[int]:
        """Return the number of connections that fit these limits, and the limits afterwards."""
        numbers = (str(number) for number in (soft, hard, connections))
        done = run([sys.executable, "-c", _PROGRAM, *numbers])
        self.assertEqual(done.returncode, 0, done.stderr)
        return [int(number) for number in done.stdout.split()]

    def test_room_enough(self) -> None:
        """A limit that is high enough stays as it is."""
        self.assertEqual(self.room(700, 1000, 400), [400, 700, 1000])

    def test_raised(self) -> None:
        """A limit that is too low is raised as far as needed."""
        self.assertEqual(self.room(300, 1000, 400), [400, 656, 1000])

    def test_no_more(self) -> None:
        """A limit that cannot be raised so far allows fewer connections."""
        self.assertEqual(self.room(300, 600, 2000), [344, 600, 600])
