"""Tests for a worker's process and its slot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.standalone.plan import load_config
from synapse_login_module.standalone.sd_notify import Notifier
from synapse_login_module.standalone.workers import worker
from synapse_login_module.standalone.workers.process import (
    HEARTBEAT_INTERVAL,
    CannotStart,
    WorkerProcess,
    WorkerSpec,
)
from synapse_login_module.standalone.workers.slot import WorkerSlot
from synapse_login_module.standalone.workers.supervisor import Supervisor
from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder


class FakeWorker:
    """A worker that the test controls."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ready: Deferred[None] = Deferred()
        self.ended: Deferred[str] = Deferred()


class SlotTests(SynchronousTestCase):
    """A slot with fake workers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.workers: list[FakeWorker] = []
        self.slot = WorkerSlot(1, self.start, self.clock)
        self.slot.watch()

    def start(self) -> Any:
        """Start a worker."""
        self.workers.append(FakeWorker(100 + len(self.workers)))
        return self.workers[-1]

    def fail(self, how: str = "signal 9") -> float:  # type: ignore[override]
        """End the worker; return the seconds until another starts."""
        count = len(self.workers)
        self.workers[-1].ended.callback(how)
        pause = 0.0
        self.clock.advance(0)
        while len(self.workers) == count:
            self.clock.advance(0.5)
            pause += 0.5
        return pause

    def test_settled(self) -> None:
        """A worker that has run for a while is replaced at once."""
        self.clock.advance(10)
        self.assertEqual(self.fail(), 0)
        self.assertEqual([each.pid for each in self.workers], [100, 101])
        self.assertIs(self.slot.worker, self.workers[1])

    def test_back_off(self) -> None:
        """The pause doubles while workers end early, up to a minute."""
        self.assertEqual([self.fail() for _ in range(8)], [1, 2, 4, 8, 16, 32, 60, 60])
        self.clock.advance(10)
        self.assertEqual([self.fail(), self.fail()], [0, 1])

    def test_told(self) -> None:
        """The log names the worker, how it ended, and when another starts."""
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
        """A worker that cannot start again is replaced too."""
        self.fail()
        self.workers[-1].ready.errback(Failure(CannotStart("worker 1 cannot start")))
        self.assertEqual(self.fail("exit status 1"), 2)

    def test_start_raises(self) -> None:
        """A start that raises is tried again after a pause; the log has the error."""
        start, failing = self.start, [ZeroDivisionError(), OSError(28, "full")]

        def fails() -> Any:
            if failing:
                raise failing.pop()
            return start()

        self.slot._start = fails
        self.assertEqual(self.fail(), 1 + 2 + 4)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(self.fail(), 8)

    def test_given_up(self) -> None:
        """A slot that is given up stays empty, even if a start was scheduled."""
        self.slot.give_up()
        self.workers[-1].ended.callback("exit status 0")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        other = WorkerSlot(2, self.start, self.clock)
        other.watch()
        self.workers[-1].ended.callback("signal 9")
        other.give_up()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ended_before_it_was_kept(self) -> None:
        """A worker that has ended before the slot is watched is replaced."""
        slot = WorkerSlot(2, self.start, self.clock)
        self.workers[-1].ended.callback("signal 9")
        slot.watch()
        self.clock.advance(1)
        self.assertIs(slot.worker, self.workers[2])


class Child:
    """A process that the test controls.

    :ivar told: the signals that were sent to it.
    """

    pid = 4711

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.told: list[str] = []
        self.closed: list[int] = []

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        """Ignore the configuration."""

    def closeChildFD(self, descriptor: int) -> None:
        """Close a pipe; an exited process has ended with its last one."""
        self.closed.append(descriptor)

    def signalProcess(self, name: str) -> None:
        """Record a signal."""
        self.told.append(name)

    def says(self, data: bytes) -> None:
        """Write to the parent."""
        self.protocol.childDataReceived(worker.TO_PARENT, data)


class Processes(Clock):
    """A reactor with fake processes."""

    def __init__(self) -> None:
        super().__init__()
        self.children: list[Child] = []

    def spawnProcess(self, protocol: Any, *_: object, **__: object) -> None:
        """Start a fake process."""
        self.children.append(Child(protocol))
        protocol.makeConnection(self.children[-1])


class NoProcesses(Clock):
    """A reactor that cannot start processes."""

    def spawnProcess(self, *_: object, **__: object) -> None:
        """Raise ``OSError``, as Twisted does when a process cannot be started."""
        raise PermissionError(13, "Permission denied")


DUTY = WorkerSpec(Path("x"), b"", 2, 0, 0, [], relay_output=True)


class WorkerProcessTests(SynchronousTestCase):
    """A worker's process; ``test_processes`` has real ones."""

    def setUp(self) -> None:
        self.reactor = Processes()
        self.process = WorkerProcess(1, DUTY, self.reactor)
        self.child = self.reactor.children[0]

    def beats(self, count: int) -> None:
        """Let ``count`` heartbeat intervals pass without a heartbeat."""
        self.reactor.pump([HEARTBEAT_INTERVAL] * count)

    def end(self) -> None:
        """End the process."""
        self.process.processEnded(Failure(ProcessTerminated(signal=9)))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_ready(self) -> None:
        """The worker is ready once it says so, whatever else comes in the same read."""
        self.child.says(worker.READY[:2])
        self.assertNoResult(self.process.ready)
        self.child.says(worker.READY[2:] + worker.HEARTBEAT)
        self.successResultOf(self.process.ready)

    def test_silent(self) -> None:
        """A worker without heartbeats for half a minute is killed, and that is logged."""
        self.child.says(worker.READY)
        for _ in range(100):
            self.beats(6)
            self.child.says(worker.HEARTBEAT)
        self.assertEqual(self.child.told, [])
        with capturedLogs() as events:
            self.beats(7)
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["worker 1, process 4711, gives no sign of life: killed"],
        )
        self.assertEqual(self.child.told, ["KILL"])
        self.end()
        self.assertEqual(self.successResultOf(self.process.ended), "signal 9")

    def test_log_is_no_life(self) -> None:
        """Output to the log does not count as a heartbeat."""
        self.child.says(worker.READY)
        for _ in range(7):
            self.beats(1)
            self.process.childDataReceived(1, b"still here\n")
        self.assertEqual(self.child.told, ["KILL"])

    def test_slow_start(self) -> None:
        """At its start it may be silent for ten minutes, but not longer."""
        self.beats(120)
        self.assertEqual(self.child.told, [])
        self.beats(1)
        self.assertEqual(self.child.told, ["KILL"])
        self.end()
        self.failureResultOf(self.process.ready, CannotStart)

    def test_standstill(self) -> None:
        """Suspensions of the parent, however many and long, do not count as missing heartbeats."""
        self.child.says(worker.READY)
        for _ in range(6):
            self.reactor.advance(1_000_000)
        self.child.says(worker.HEARTBEAT)
        self.reactor.advance(1_000_000)
        self.assertEqual(self.child.told, [])

    def test_leaves(self) -> None:
        """A worker that was told to exit needs no heartbeats, and is killed after a minute."""
        self.child.says(worker.READY)
        self.process.retire()
        self.assertEqual(self.child.closed, [worker.CONFIGURATION])
        self.beats(8)
        self.process.stop()
        self.assertEqual(self.child.told, ["TERM"])
        self.beats(4)
        self.assertEqual(self.child.told, ["TERM", "KILL"])
        self.end()

    def test_last_words(self) -> None:
        """Output left in the pipes at the end is logged, with and without an end of line."""
        with capturedLogs() as events:
            self.process.childDataReceived(2, b"Fatal\nerror")
            self.end()
        self.assertEqual([formatEvent(event) for event in events], ["Fatal", "error"])
        self.failureResultOf(self.process.ready, CannotStart)

    def test_pipes_held_open(self) -> None:
        """Pipes that other processes hold open are closed a second after the worker's exit."""
        self.process.processExited(Failure(ProcessTerminated(signal=9)))
        self.process.stop()
        self.assertEqual(self.child.closed, [])
        self.reactor.advance(1)
        self.assertEqual(set(self.child.closed), {0, 1, 2, 3})
        self.end()
        self.failureResultOf(self.process.ready, CannotStart)

    def test_no_process(self) -> None:
        """A process that cannot be started counts as one that ended at once."""
        clock = NoProcesses()
        process = WorkerProcess(1, DUTY, clock)
        failure = self.failureResultOf(process.ready, CannotStart)
        self.assertEqual(str(failure.value), "worker 1 cannot start: [Errno 13] Permission denied")
        self.assertEqual(self.successResultOf(process.ended), "[Errno 13] Permission denied")
        process.stop()
        process.retire()
        self.assertEqual(clock.getDelayedCalls(), [])


class SupervisorTests(SynchronousTestCase):
    """A supervisor with fake processes."""

    def test_stopped_as_they_become_ready(self) -> None:
        """Workers that become ready while the server stops are not replaced when they end."""
        folder = temporary_folder(self)
        plan = load_config(write_config(folder, good_config()), MemoryReactor())
        plan = replace(plan, config=plan.config.model_copy(update={"listen": []}))
        clock = Processes()
        supervisor = Supervisor(
            folder / "config.yaml",
            plan,
            2,
            clock,
            Notifier({}, clock),
            lambda: self.fail("it serves"),
            lambda loaded: self.fail("it reloads"),
            self.fail,
            relay_output=True,
        )
        supervisor.startService()
        stopped = supervisor.stopService()
        with capturedLogs() as events:
            for child in clock.children:
                child.says(worker.READY)
            self.assertEqual([child.told for child in clock.children], [["TERM"]] * 2)
            for child in clock.children:
                child.protocol.processEnded(Failure(ProcessDone(0)))
        self.successResultOf(stopped)
        self.assertEqual(events, [])
        self.assertEqual(clock.getDelayedCalls(), [])
