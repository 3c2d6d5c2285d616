"""The states of accounts in a real slapd, and what clients are told of them."""

from __future__ import annotations

from typing import Any

from synapse_login_module.model import AccountStatus
from tests.providers.ldap.case import SEARCH, LDAPCase, person
from tests.providers.ldap.test_groups import unix
from tests.providers.served import ComposedCase
from tests.support.slapd import SUFFIX, Slapd

WRONG = "looking-glass"
_POLICY = f"""\
dn: cn=policy,{SUFFIX}
changetype: modify
replace: pwdLockout
pwdLockout: TRUE
-
replace: pwdMustChange
pwdMustChange: TRUE
-
replace: pwdMaxAge
pwdMaxAge: 1000
"""


LONG_AGO, FAR_AWAY = "20200101000000Z", "20990101000000Z"

PEOPLE_OF_ALL_STATES = (
    person("fine"),
    person("stay", pwdEndTime=FAR_AWAY),
    person("must", pwdReset="TRUE"),
    person("old", pwdChangedTime=LONG_AGO),
    person("lou", pwdAccountLockedTime="000001010000Z"),
    person("end", pwdEndTime=LONG_AGO),
    person("dis", title="gone"),
)


class PolicyTests(LDAPCase):
    """OpenLDAP's overlay ``ppolicy``."""

    async def test_states(self) -> None:
        """With the right password, with a wrong one, and at a look."""
        slapd = self.slapd(*PEOPLE_OF_ALL_STATES)
        slapd.change(_POLICY)
        provider = self.searching(slapd, directory="openldap")
        active, expired = AccountStatus.ACTIVE, AccountStatus.PASSWORD_EXPIRED
        for uid, at_login, at_look in (
            ("fine", active, active),
            ("stay", active, active),
            ("must", expired, active),
            ("old", expired, active),
            ("lou", None, AccountStatus.LOCKED),
            ("end", None, AccountStatus.DEACTIVATED),
        ):
            if at_login is None:
                await self.assert_rejected(provider, uid, f"pw-{uid}")
            else:
                account = await self.assert_logs_in(provider, uid)
                self.assertIs(account.status, at_login, uid)
            await self.assert_rejected(provider, uid, WRONG)
            look = await provider.account_status(f"@{uid}:example.com")
            self.assertIs(look, at_look, uid)


class ShadowTests(LDAPCase):
    """The end of Unix accounts."""

    async def test_end(self) -> None:
        """An account ends with the day of ``shadowExpire``, by the clock of this server."""
        today = 1_790_000_000 // 86_400
        classes = ["inetOrgPerson", "posixAccount", "shadowAccount"]
        for number, (value, expected) in enumerate(
            (
                (str(today), AccountStatus.DEACTIVATED),
                ("0", AccountStatus.DEACTIVATED),
                (str(today + 1), AccountStatus.ACTIVE),
                ("-1", AccountStatus.ACTIVE),
                ("99999", AccountStatus.ACTIVE),
            )
        ):
            uid = f"u{number}"
            slapd = self.slapd(unix(uid, objectClass=classes, shadowExpire=value))
            provider = self.searching(slapd, directory="shadow")
            account = await self.assert_logs_in(provider, uid)
            self.assertIs(account.status, expected, value)
            self.assertIs(await provider.account_status(f"@{uid}:example.com"), expected)
            await self.assert_rejected(provider, uid, WRONG)
            slapd.remove()


class AnswersTests(ComposedCase):
    """What clients are answered over HTTP."""

    async def test_answers(self) -> None:
        """A right password is told what is in its way, and a wrong one nothing. That holds for the
        cache as well.
        """
        slapd = Slapd()
        self.addCleanup(slapd.remove)
        slapd.fill("".join(PEOPLE_OF_ALL_STATES))
        slapd.start()
        slapd.change(_POLICY)
        config: dict[str, Any] = {**SEARCH, "servers": [slapd.url], "directory": "openldap"}
        config["disabled_filter"] = "(title=gone)"
        module = "synapse_login_module.providers.ldap.LDAPProvider"
        self.serve({"module": module, "config": config, "cache": {"lifetime": "10m"}})
        wrong = await self.answer_to("nobody", WRONG)
        self.assertEqual(wrong, (403, "M_FORBIDDEN", "Invalid username or password"))
        for uid, status, errcode, text in (
            ("must", 403, "M_FORBIDDEN", "Your password has expired."),
            ("must", 403, "M_FORBIDDEN", "Your password has expired."),
            ("old", 403, "M_FORBIDDEN", "Your password has expired."),
            ("dis", 403, "M_USER_DEACTIVATED", "This account has been deactivated"),
            ("lou", *wrong),
        ):
            answer = await self.answer_to(uid, f"pw-{uid}")
            self.assertEqual(answer[:2], (status, errcode), uid)
            self.assertTrue(answer[2].startswith(text), answer)
            self.assertEqual(await self.answer_to(uid, WRONG), wrong, uid)

    async def answer_to(self, name: str, password: str) -> tuple[int, str, str]:
        """Log in, in vain; return the status, the error code and the text."""
        body = {"type": "m.login.password", "user": name, "password": password}
        status, answer = await self.post("login", body)
        return status, answer["errcode"], answer["error"]
