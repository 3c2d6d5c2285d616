"""Tests for a worker's place and who fills it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.workerprocess import CannotStart, Duty, Seat, WorkerProcess


class FakeWorker:
    """Does what the test says."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ready: Deferred[None] = Deferred()
        self.ended: Deferred[str] = Deferred()


class SeatTests(SynchronousTestCase):
    """A seat whose workers are fakes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.workers: list[FakeWorker] = []
        self.seat = Seat(1, self.start, self.clock)
        self.seat.keep()

    def start(self) -> Any:
        """Start a worker."""
        self.workers.append(FakeWorker(100 + len(self.workers)))
        return self.workers[-1]

    def fail(self, how: str = "signal 9") -> float:  # type: ignore[override]
        """Have the worker end; after how many seconds another starts."""
        count = len(self.workers)
        self.workers[-1].ended.callback(how)
        pause = 0.0
        self.clock.advance(0)
        while len(self.workers) == count:
            self.clock.advance(0.5)
            pause += 0.5
        return pause

    def test_settled(self) -> None:
        """One who had been there for a while is replaced at once."""
        self.clock.advance(10)
        self.assertEqual(self.fail(), 0)
        self.assertEqual([each.pid for each in self.workers], [100, 101])
        self.assertIs(self.seat.worker, self.workers[1])

    def test_back_off(self) -> None:
        """One after another who does not stay is waited for ever longer, up to a minute."""
        self.assertEqual([self.fail() for _ in range(8)], [1, 2, 4, 8, 16, 32, 60, 60])
        self.clock.advance(10)
        self.assertEqual([self.fail(), self.fail()], [0, 1])

    def test_told(self) -> None:
        """The log says who ended, how, and when another starts."""
        with capturedLogs() as events:
            self.fail("token_store.config.path: cannot use it")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "worker 1, process 100, ended: token_store.config.path: cannot use it;"
                " another starts in 1 seconds"
            ],
        )

    def test_cannot_start_again(self) -> None:
        """One who cannot even start is replaced all the same."""
        self.fail()
        self.workers[-1].ready.errback(Failure(CannotStart("worker 1 cannot start")))
        self.assertEqual(self.fail("exit status 1"), 2)

    def test_given_up(self) -> None:
        """A seat that is given up stays empty, also one that was about to be filled."""
        self.seat.give_up()
        self.workers[-1].ended.callback("exit status 0")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        other = Seat(2, self.start, self.clock)
        other.keep()
        self.workers[-1].ended.callback("signal 9")
        other.give_up()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ended_before_it_was_kept(self) -> None:
        """One who is gone by the time that the seat is to be kept filled is replaced."""
        seat = Seat(2, self.start, self.clock)
        self.workers[-1].ended.callback("signal 9")
        seat.keep()
        self.clock.advance(1)
        self.assertIs(seat.worker, self.workers[2])


class NoProcesses:
    """A reactor that starts none."""

    def spawnProcess(self, *_: object, **__: object) -> None:
        """Do what Twisted does where there is no program, or no room for it."""
        raise PermissionError(13, "Permission denied")


class WorkerProcessTests(SynchronousTestCase):
    """A worker's process; those that do start are in tests/workers."""

    def test_no_process(self) -> None:
        """A process that cannot be started at all counts as one that ended at once."""
        duty = Duty(Path("x"), b"", 2, 0, [], relay_output=False)
        process = WorkerProcess(1, duty, NoProcesses())
        failure = self.failureResultOf(process.ready, CannotStart)
        self.assertEqual(str(failure.value), "worker 1 cannot start: [Errno 13] Permission denied")
        self.assertEqual(self.successResultOf(process.ended), "[Errno 13] Permission denied")
        process.stop()
        process.retire()
