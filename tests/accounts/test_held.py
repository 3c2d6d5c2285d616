"""Tests for letting go of the accounts that the brake holds."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.accounts.brake import BrakeLimit
from synapse_login_module.accounts.held import find_held, let_go
from synapse_login_module.errors import ProviderUnavailable
from tests.accounts.fakes import UNVERIFIABLE, Accounts


class HeldTests(SynchronousTestCase):
    """Three accounts vanish where one may."""

    def test_let_go(self) -> None:
        """Who is still gone ends, who is known again is kept, and who cannot be told is held on."""
        accounts = Accounts(BrakeLimit(1, 0))
        gone, back, unsaid, _ = accounts.watch.add(4)
        accounts.lose([gone, back, unsaid])
        for user in (gone, back, unsaid):
            self.assertIs(self.successResultOf(accounts.ask(user)), UNVERIFIABLE)
        held = self.successResultOf(Deferred.fromCoroutine(find_held(accounts.watch)))
        self.assertEqual([row.user_id for row in held], [gone, back, unsaid])
        self.assertEqual(accounts.watch.ended(), [])
        accounts.regain([back])
        accounts.lose([unsaid], ProviderUnavailable("away"))
        done = self.successResultOf(
            Deferred.fromCoroutine(let_go(held, accounts.questions, accounts.judge))
        )
        for rows, users in ((done.ended, [gone]), (done.kept, [back]), (done.unsaid, [unsaid])):
            self.assertEqual([row.user_id for row in rows], users)
        self.assertEqual(accounts.watch.ended(), [gone])
        left = self.successResultOf(Deferred.fromCoroutine(find_held(accounts.watch)))
        self.assertEqual([row.user_id for row in left], [unsaid])
