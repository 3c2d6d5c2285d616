"""The rules of linking."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.accounts.rules import ExistingAccount, ExistingAccounts, LinkRules

_USER = "@alice:example.com"
_PROVIDERS = ("ldap", "directory")

_ORDINARY = {
    "nothing": ExistingAccount(_USER),
    "password": ExistingAccount(_USER, has_password=True),
    "single sign-on": ExistingAccount(_USER, has_sso_id=True),
    "both": ExistingAccount(_USER, has_password=True, has_sso_id=True),
}
_EXTRAORDINARY = {
    "bridged": ExistingAccount(_USER, is_bridged=True),
    "special": ExistingAccount(_USER, is_special=True),
    "guest": ExistingAccount(_USER, is_guest=True),
    "administrator": ExistingAccount(_USER, is_admin=True),
    "deactivated": ExistingAccount(_USER, is_deactivated=True),
    "reserved": ExistingAccount(_USER, is_reserved=True),
}
_MODES: tuple[ExistingAccounts, ...] = ("passwordless", "all", "none")


class RulesTests(SynchronousTestCase):
    """:class:`synapse_login_module.accounts.rules.LinkRules`."""

    def test_ordinary(self) -> None:
        """Each value of existing_accounts lets these ordinary accounts be linked."""
        linked = {
            mode: [
                what
                for what, account in _ORDINARY.items()
                if LinkRules(mode).refusal(account, _PROVIDERS) is None
            ]
            for mode in _MODES
        }
        self.assertEqual(linked, {"passwordless": ["nothing"], "all": list(_ORDINARY), "none": []})

    def test_extraordinary(self) -> None:
        """No value lets any other be linked; only link_accounts would."""
        for mode in _MODES:
            for what, account in _EXTRAORDINARY.items():
                refusal = LinkRules(mode).refusal(account, _PROVIDERS)
                assert refusal is not None, (mode, what)
                self.assertEqual(refusal.setting, f'link_accounts: ["{_USER}"], or links link')

    def test_exceptions(self) -> None:
        """An account that link_accounts names is linked whatever it is, by exact spelling."""
        for exception, holds in (
            ((None, _USER), True),
            (("ldap", _USER), True),
            (("directory", _USER), True),
            (("sql", _USER), False),
            ((None, "@Alice:example.com"), False),
        ):
            rules = LinkRules("none", [exception])
            for account in (*_ORDINARY.values(), *_EXTRAORDINARY.values()):
                refused = rules.refusal(account, _PROVIDERS) is not None
                self.assertEqual(refused, not holds, (exception, account))

    def test_setting(self) -> None:
        """A refusal names what would allow it."""
        for mode, what, words in (
            ("passwordless", "password", ("local password", "existing_accounts: all")),
            ("passwordless", "single sign-on", ("single sign-on", "existing_accounts: all")),
            ("none", "nothing", ("none", "existing_accounts: passwordless")),
        ):
            for text, word in zip(
                LinkRules(mode).refusal(_ORDINARY[what], _PROVIDERS) or ("", ""),  # type: ignore[arg-type]
                words,
                strict=True,
            ):
                self.assertIn(word, text)
