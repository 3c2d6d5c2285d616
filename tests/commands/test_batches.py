"""Tests for ending all sessions in batches."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.commands.batches import BATCH, end_in_batches
from synapse_login_module.model import EndedBatch


class BatchTests(SynchronousTestCase):
    """The pace of the batches."""

    def test_pauses(self) -> None:
        """Each batch goes on behind the one before, after a pause as long as that took."""
        clock = Clock()
        asked: list[tuple[int | None, int]] = []
        updates: list[int] = []
        running: list[Deferred[EndedBatch]] = []

        def end(after: int | None, most: int) -> Deferred[EndedBatch]:
            asked.append((after, most))
            running.append(Deferred())
            return running[-1]

        done = Deferred.fromCoroutine(end_in_batches(end, updates.append, clock))
        self.assertEqual(asked, [(None, BATCH)])
        clock.advance(3)
        running.pop().callback(EndedBatch(5, 17))
        clock.advance(2)
        self.assertEqual(len(asked), 1)
        clock.advance(1)
        self.assertEqual(asked[1:], [(17, BATCH)])
        running.pop().callback(EndedBatch(2, None))
        self.assertEqual(self.successResultOf(done), 7)
        self.assertEqual(updates, [5, 2])
