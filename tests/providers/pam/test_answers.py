"""What clients get, over HTTP, from PAM and from saslauthd."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import succeed

from synapse_login_module.model import AccountStatus
from synapse_login_module.providers.even_time import EvenTime
from synapse_login_module.providers.pam import config, users
from synapse_login_module.providers.pam.codes import Code
from tests.providers.case import PASSWORD
from tests.providers.pam.case import ALICE_USER, ScriptedPAM
from tests.providers.saslauthd.test_saslauthd import ScriptedSaslauthd
from tests.providers.test_answers import AnswersMixin, Entry, OutagesMixin, ServedCase

_CODES = {
    AccountStatus.ACTIVE: Code.SUCCESS,
    AccountStatus.LOCKED: Code.PERM_DENIED,
    AccountStatus.DEACTIVATED: Code.ACCT_EXPIRED,
}


class AtOnceCase(ServedCase):
    """Refusals that do not wait: their time is the subject of other tests."""

    def setUp(self) -> None:
        self.patch(EvenTime, "wait", lambda self, began: succeed(None))


class PAMAnswers(AnswersMixin, OutagesMixin, AtOnceCase):
    """PAM, and the name service."""

    kind = "pam"
    emails = False

    async def provider(self) -> Entry:
        """An entry for a library that knows alice."""
        self.pam = ScriptedPAM()
        self.known = {"alice": ALICE_USER}
        self.patch(config, "LibPAM", lambda service: self.pam)
        by_uid = {1001: "alice"}
        self.patch(
            config,
            "UnixUsers",
            partial(
                users.UnixUsers,
                by_name=lambda name: self.known.get(name),
                by_uid=lambda uid: self.known.get(by_uid.get(uid, "")),
            ),
        )
        return self.entry("PAMProvider", {})

    async def become(self, status: AccountStatus | None) -> None:
        """Change the account, or remove the user."""
        if status is None:
            self.known.clear()
        else:
            self.pam.account_code = _CODES[status]

    async def test_outages(self) -> None:
        """Each error of PAM that is no refusal is an outage, which is said so."""
        entry = await self.provider()
        for code in (Code.AUTHINFO_UNAVAIL, Code.MODULE_UNKNOWN, Code.CONV_ERR):
            self.pam.code = code
            await self.outage(entry, f"PAM_{code.name}")


class SaslauthdAnswers(AnswersMixin, OutagesMixin, AtOnceCase):
    """saslauthd, which cannot say what becomes of an account."""

    kind = "saslauthd"
    emails = False
    statuses = frozenset({AccountStatus.ACTIVE})
    removed = "kept"

    async def provider(self) -> Entry:
        """An entry for a socket that knows alice."""
        server = ScriptedSaslauthd()
        self.addCleanup(server.stop)
        self.known = [b"alice", PASSWORD.encode()]
        server.decide = lambda asked: b"OK" if asked[:2] == self.known else b"NO PAM auth error"
        return self.entry("SaslauthdProvider", {"socket": str(server.socket)})

    async def become(self, status: AccountStatus | None) -> None:
        """Remove the account."""
        self.known = []

    async def test_outages(self) -> None:
        """A socket that nothing listens on is an outage."""
        entry = await self.provider()
        entry["config"]["socket"] += "-none"
        await self.outage(entry, "No such file or directory")
