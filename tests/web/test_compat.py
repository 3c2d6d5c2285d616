"""Tests for :mod:`synapse_login_module.web.compat`."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import http

from synapse_login_module.errors import ConfigError
from synapse_login_module.standalone.check import check_file
from synapse_login_module.standalone.plan import load_config
from synapse_login_module.tap import Options, makeService
from synapse_login_module.web import channel, compat, http_request, site
from tests.support.configuration import good_config, write_config
from tests.support.folders import temporary_folder


class IncompatibilityTests(SynchronousTestCase):
    """:func:`synapse_login_module.web.compat.find_incompatibility`."""

    def setUp(self) -> None:
        self.path = write_config(temporary_folder(self), good_config())

    def lose(self, owner: type, name: str) -> None:
        """Have Twisted lack a name until the end of the test."""
        self.addCleanup(setattr, owner, name, vars(owner)[name])
        delattr(owner, name)

    def lose_attribute(self, owner: type, name: str) -> None:
        """Have a class, and its methods, set no such attribute until the end of the test."""
        for each, found in list(vars(owner).items()):
            if each == name or (inspect.isfunction(found) and name in found.__code__.co_names):
                self.lose(owner, each)

    def assert_refused(self, name: str) -> None:
        """The start, and ``check-config``, end with one line that names it."""
        line = f"this release of Twisted is not supported: it lacks twisted.web.http.{name}"
        error = self.assertRaises(ConfigError, load_config, self.path, MemoryReactorClock())
        self.assertEqual([str(each) for each in error.all()], [line])
        error = self.assertRaises(ConfigError, check_file, self.path, MemoryReactorClock())
        self.assertEqual([str(each) for each in error.all()], [line])
        options = Options()
        options["config"] = str(self.path)
        ended = self.assertRaises(SystemExit, makeService, options)
        self.assertEqual(str(ended.code), f"synapse-login: {self.path}: {line}")

    def test_installed_release(self) -> None:
        """The installed release of Twisted has every name; if not, this shows which is missing."""
        self.assertIsNone(compat.find_incompatibility())

    def test_method(self) -> None:
        """A release without a method is rejected."""
        self.lose(http.HTTPChannel, "_send100Continue")
        self.assert_refused("HTTPChannel._send100Continue")

    def test_attribute(self) -> None:
        """A release that does not set an attribute is rejected."""
        self.lose_attribute(http.HTTPChannel, "_networkProducer")
        self.assert_refused("HTTPChannel._networkProducer")

    def test_attribute_of_a_request(self) -> None:
        """A release without an attribute of requests is rejected."""
        self.lose_attribute(http.Request, "startedWriting")
        self.assert_refused("Request.startedWriting")

    def test_class(self) -> None:
        """A release without a class is rejected."""
        others = SimpleNamespace(HTTPChannel=http.HTTPChannel, Request=http.Request)
        self.patch(compat, "http", others)
        self.assert_refused("_ChunkedTransferDecoder._maxTrailerHeadersSize")

    def test_each_name(self) -> None:
        """A release without any one of the names is rejected with that name."""
        for owner, names in compat.NEEDED.items():
            for missing in names:
                others = {name: None for name in names if name != missing}
                with self.subTest(name=missing):
                    patch = self.patch(http, owner, type(owner, (), others))
                    self.assertEqual(
                        compat.find_incompatibility(), f"twisted.web.http.{owner}.{missing}"
                    )
                    patch.restore()

    def test_inside_synapse(self) -> None:
        """A configuration of Synapse is not rejected, because Synapse's own site serves there."""
        self.lose(http.HTTPChannel, "_send100Continue")
        config = {
            "listeners": [{"type": "http", "resources": []}],
            "modules": [
                {
                    "module": "synapse_login_module.SynapseLoginModule",
                    "config": {"password_providers": good_config()["password_providers"]},
                }
            ],
        }
        check_file(write_config(temporary_folder(self), config), MemoryReactorClock())


class CompletenessTests(SynchronousTestCase):
    """:data:`synapse_login_module.web.compat.NEEDED` has all private names that are used."""

    def test_complete(self) -> None:
        """A private name that a class of Twisted and one of these modules have is in the list."""
        used = {name for module in (channel, http_request, site) for name in _private_names(module)}
        bases = (*channel.LoginChannel.__mro__, *http_request.HTTPRequest.__mro__)
        owners = {each for each in (*bases, *site.LoginSite.__mro__) if _is_of_twisted(each)}
        owners.add(http._ChunkedTransferDecoder)
        of_twisted = {name for owner in owners for name in compat.attributes(owner)}
        listed = {name for names in compat.NEEDED.values() for name in names}
        self.assertEqual(used & of_twisted, {name for name in listed if name.startswith("_")})

    def test_no_other(self) -> None:
        """A private name that is in no list is defined in the module that uses it."""
        listed = {name for names in compat.NEEDED.values() for name in names}
        for module in (channel, http_request, site):
            unknown = set(_private_names(module)) - listed - set(_defined_names(module))
            self.assertEqual(unknown, set(), module.__name__)


def _is_of_twisted(owner: type) -> bool:
    return owner.__module__.startswith("twisted.")


def _tree(module: ModuleType) -> ast.Module:
    assert module.__file__ is not None
    return ast.parse(Path(module.__file__).read_text())


def _private_names(module: ModuleType) -> Iterator[str]:
    """The private attributes that a module uses, defines in its classes, or imports."""
    for node in ast.walk(_tree(module)):
        names = [node.attr] if isinstance(node, ast.Attribute) else []
        if isinstance(node, ast.ImportFrom):
            names = [each.name for each in node.names]
        if isinstance(node, ast.ClassDef):
            names = list(_names_in(node))
        yield from (name for name in names if name.startswith("_") and not name.startswith("__"))


def _defined_names(module: ModuleType) -> Iterator[str]:
    """The names that the classes of a module define, and those that they set on their instances."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ClassDef):
            yield from _names_in(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield from [node.attr] if ast.unparse(node.value) == "self" else []


def _names_in(node: ast.ClassDef) -> Iterator[str]:
    """The names that a class defines in its body."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            yield each.name
        targets = each.targets if isinstance(each, ast.Assign) else [getattr(each, "target", None)]
        yield from (target.id for target in targets if isinstance(target, ast.Name))
