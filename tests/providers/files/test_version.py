"""Whether providers of files can tell when their accounts may have changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from synapse_login_module.interfaces import IWatchedAccounts
from synapse_login_module.providers import BcryptProvider, HtpasswdProvider, PasswdProvider
from synapse_login_module.testing.fakes import environment

_HASH = "$2b$04$" + "." * 53


class VersionTests(SynchronousTestCase):
    """``IWatchedAccounts``."""

    def build(self, cls: Any, config: dict[str, Any]) -> Any:
        """A provider of this class."""
        return cls(cls.parse_config(config, Path()), environment())

    def test_files(self) -> None:
        """The version stays while the file does, and changes with it, also when it goes."""
        for cls, line in (
            (BcryptProvider, f'users: {{alice: {{password_hash: "{_HASH}"}}}}\n'),
            (HtpasswdProvider, f"alice:{_HASH}\n"),
            (PasswdProvider, f"alice:{_HASH}\n"),
        ):
            path = Path(self.mktemp()).absolute()
            path.write_text(line)
            provider = self.build(cls, {"path": str(path)})
            verifyObject(IWatchedAccounts, provider)
            first = provider.version()
            self.assertEqual(provider.version(), first)
            other = path.with_suffix(".new")
            other.write_text(line)
            os.replace(other, path)
            second = provider.version()
            self.assertNotEqual(second, first)
            path.unlink()
            self.assertNotIn(provider.version(), (first, second))

    def test_inline(self) -> None:
        """Accounts that stand in the configuration never change."""
        provider = self.build(BcryptProvider, {"users": {"alice": {"password_hash": _HASH}}})
        self.assertEqual(provider.version(), "configured")
