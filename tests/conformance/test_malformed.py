"""Bodies that are no JSON, or JSON of the wrong shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.conformance import paths
from tests.conformance.case import ConformanceTestCase, Named, cases, named
from tests.conformance.target import Feature
from tests.support.response import Response

_BODIES = {
    paths.LOGIN: None,
    paths.TOKENREFRESH: Feature.TOKENREFRESH,
    paths.REFRESH: Feature.REFRESH,
    paths.GET_TOKEN: Feature.GET_TOKEN,
}
"""The paths that take a body, each with the feature that it belongs to."""

_GOOD = b'{"type": "m.login.password", "refresh_token": "x"}'

_NOT_JSON = [
    ("blank", b"  \r\n"),
    ("word", b"nonsense"),
    ("form", b"user=cheeky_monkey&password=ilovebananas"),
    ("cut off", b'{"type": "m.login.password"'),
    ("trailing text", _GOOD + b" and more"),
    ("two objects", _GOOD + _GOOD),
    ("trailing comma", b'{"type": "m.login.password",}'),
    ("single quotes", b"{'type': 'm.login.password'}"),
    ("comment", b'{"type": "m.login.password" /* so */}'),
    ("NaN", b'{"type": NaN, "refresh_token": NaN}'),
    ("Infinity", b'{"type": "m.login.password", "refresh_token": "x", "n": Infinity}'),
    ("minus Infinity", b'{"type": "m.login.password", "refresh_token": "x", "n": -Infinity}'),
    ("bare NaN", b"NaN"),
    ("control character", b'{"type": "m.login\x00.password"}'),
    ("raw newline", b'{"type": "m.login\n.password"}'),
    ("bad escape", b'{"type": "\\x41"}'),
    ("not UTF-8", b'{"type": "\xff\xfe"}'),
    ("overlong UTF-8", b'{"type": "\xc0\xaf"}'),
    ("surrogate in UTF-8", b'{"type": "\xed\xa0\x80"}'),
    ("UTF-16", _GOOD.decode().encode("utf-16")),
    ("UTF-16 little-endian", _GOOD.decode().encode("utf-16-le")),
    ("UTF-16 big-endian", _GOOD.decode().encode("utf-16-be")),
    ("UTF-32", _GOOD.decode().encode("utf-32")),
    ("binary", bytes(range(256))),
]

_WRONG_SHAPE: list[tuple[str, Any]] = [
    ("null", None),
    ("true", True),
    ("number", 42),
    ("string", "m.login.password"),
    ("empty array", []),
    ("array", [{"type": "m.login.password", "refresh_token": "x"}]),
]

_NASTY = [
    ("deep arrays", b"[" * 60_000),
    ("deep closed arrays", b"[" * 30_000 + b"]" * 30_000),
    ("deep objects", b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    ("deep within", b'{"type": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
    ("huge integer", b'{"type": ' + b"9" * 20_000 + b', "refresh_token": 1}'),
    ("huge float", b'{"type": 1e999999, "refresh_token": 1e999999}'),
    ("huge exponent", b'{"type": -1e-999999, "refresh_token": -0}'),
    ("byte order mark", b"\xef\xbb\xbf{}"),
    ("many keys", json.dumps({str(n): n for n in range(4000)}).encode()),
    ("equal keys", b'{"type": 1, "type": 2, "refresh_token": 1, "refresh_token": 2}'),
    ("empty key", b'{"": ""}'),
    ("prototype", b'{"__proto__": {}, "__class__": {}, "type": {}, "refresh_token": {}}'),
]


_OTHER_THAN_STRINGS: list[tuple[str, Any]] = [
    ("true", True),
    ("false", False),
    ("integer", 1),
    ("number", 1.5),
    ("array", ["x"]),
    ("empty array", []),
    ("object", {"x": "x"}),
    ("empty object", {}),
]


class _MalformedTestCase(ConformanceTestCase):
    features = (Feature.STRICT_ERRORS,)

    async def _headers(self) -> dict[str, str]:
        login = await self.logged_in()
        return {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {login['access_token']}",
        }

    async def _answers(self, body: bytes) -> list[Response]:
        headers = await self._headers()
        return [
            await self.client.send("POST", paths.at(path), body, headers)
            for path, feature in _BODIES.items()
            if feature is None or feature in self.target.features
        ]


class NotJsonTests(_MalformedTestCase):
    """Bodies that are no JSON text as RFC 8259 has it, which must be UTF-8."""

    @cases(*named(_NOT_JSON))
    async def test_refused(self, body: Named) -> None:
        """What is no JSON ({}) is refused as such on every path that takes a body."""
        for answer in await self._answers(body.value):
            self.refused(answer, 400, "M_NOT_JSON")

    @cases(paths.LOGIN, paths.TOKENREFRESH, paths.REFRESH)
    async def test_empty(self, path: str) -> None:
        """An empty body is no JSON, on /{}."""
        answer = await self.client.send("POST", paths.at(path), b"", await self._headers())
        self.refused(answer, 400, "M_NOT_JSON")

    @cases(paths.LOGIN, paths.TOKENREFRESH, paths.REFRESH)
    async def test_no_body(self, path: str) -> None:
        """No body at all is no JSON, on /{}."""
        answer = await self.client.send("POST", paths.at(path), None, await self._headers())
        self.refused(answer, 400, "M_NOT_JSON")


class WrongShapeTests(_MalformedTestCase):
    """JSON that is no object."""

    @cases(*named(_WRONG_SHAPE))
    async def test_refused(self, value: Named) -> None:
        """JSON that is no object ({}) is refused as of the wrong shape on every path."""
        for answer in await self._answers(json.dumps(value.value).encode()):
            self.refused(answer, 400, "M_BAD_JSON")


class NastyTests(_MalformedTestCase):
    """Bodies made to break parsers."""

    @cases(*named(_NASTY))
    async def test_refused(self, body: Named) -> None:
        """A body made to break parsers ({}) is the client's error."""
        for answer in await self._answers(body.value):
            if answer.path.endswith(paths.GET_TOKEN) and answer.status == 401:
                continue  # Any object is valid there: it asks for the password.
            self.refused(answer, 400, "M_NOT_JSON", "M_BAD_JSON")


class FieldTests(ConformanceTestCase):
    """Objects that lack a key, or have a value of the wrong type; the error names the field."""

    features = (Feature.STRICT_ERRORS,)

    async def _assert_names(self, path: str, body: Mapping[str, object], *fields: str) -> None:
        login = await self.logged_in()
        answer = await self.client.post(paths.at(path), body, login["access_token"])
        self.refused(answer, 400, "M_BAD_JSON")
        self.assertTrue(any(field in answer.json["error"] for field in fields), str(answer))

    async def test_no_type(self) -> None:
        """A login needs a type."""
        await self._assert_names(paths.LOGIN, {"user": "x", "password": "x"}, "type")

    async def test_nothing(self) -> None:
        """An empty object lacks the type."""
        await self._assert_names(paths.LOGIN, {}, "type")

    async def test_no_password(self) -> None:
        """A login with a password needs the password."""
        await self._assert_names(paths.LOGIN, {"type": "m.login.password", "user": "x"}, "password")

    async def test_no_user(self) -> None:
        """A login with a password needs a user."""
        body = {"type": "m.login.password", "password": "x"}
        await self._assert_names(paths.LOGIN, body, "identifier", "user")

    async def test_no_token(self) -> None:
        """A login with a token needs the token."""
        await self._assert_names(paths.LOGIN, {"type": "m.login.token"}, "token")

    async def test_no_address(self) -> None:
        """A medium needs an address."""
        body = {"type": "m.login.password", "password": "x", "medium": "email"}
        await self._assert_names(paths.LOGIN, body, "address")

    async def test_no_medium(self) -> None:
        """An address needs a medium."""
        body = {"type": "m.login.password", "password": "x", "address": "cheeky@example.com"}
        await self._assert_names(paths.LOGIN, body, "medium")

    async def test_no_refresh_token(self) -> None:
        """A refresh needs the refresh token."""
        await self._assert_names(paths.REFRESH, {}, "refresh_token")
        await self._assert_names(paths.TOKENREFRESH, {}, "refresh_token")

    @cases(*named([("null", None), *_OTHER_THAN_STRINGS]))
    async def test_refresh_token(self, value: Named) -> None:
        """A refresh token must be a string; here it is: {}."""
        body = {"refresh_token": value.value}
        await self._assert_names(paths.REFRESH, body, "refresh_token")
        await self._assert_names(paths.TOKENREFRESH, body, "refresh_token")

    @cases("type", "user", "password")
    async def test_strings(self, field: str) -> None:
        """The {} of a login must be a string."""
        good: dict[str, object] = {"type": "m.login.password", "user": "x", "password": "x"}
        for _, value in [("null", None), *_OTHER_THAN_STRINGS]:
            named_fields = (field, "identifier") if field == "user" else (field,)
            await self._assert_names(paths.LOGIN, {**good, field: value}, *named_fields)

    @cases("medium", "address")
    async def test_legacy_strings(self, field: str) -> None:
        """The {} of a login must be a string."""
        good: dict[str, object] = {
            "type": "m.login.password",
            "medium": "email",
            "address": "x@example.com",
            "password": "x",
        }
        for _, value in _OTHER_THAN_STRINGS:
            await self._assert_names(paths.LOGIN, {**good, field: value}, field)

    async def test_token_string(self) -> None:
        """The token of a login must be a string."""
        for _, value in [("null", None), *_OTHER_THAN_STRINGS]:
            body = {"type": "m.login.token", "token": value}
            await self._assert_names(paths.LOGIN, body, "token")

    @cases("device_id", "initial_device_display_name")
    async def test_device_strings(self, field: str) -> None:
        """The {} of a login must be a string."""
        good: dict[str, object] = {"type": "m.login.password", "user": "x", "password": "x"}
        for _, value in _OTHER_THAN_STRINGS:
            await self._assert_names(paths.LOGIN, {**good, field: value}, field)

    async def test_wants_refresh_token(self) -> None:
        """The refresh_token of a login must be true or false."""
        good: dict[str, object] = {"type": "m.login.password", "user": "x", "password": "x"}
        values: list[Any] = ["true", 1, [], {}]
        for value in values:
            await self._assert_names(paths.LOGIN, {**good, "refresh_token": value}, "refresh_token")

    @cases(*named([("string", "m.id.user"), *_OTHER_THAN_STRINGS]))
    async def test_identifier(self, value: Named) -> None:
        """An identifier must be an object with a type; here it is: {}."""
        body = {"type": "m.login.password", "identifier": value.value, "password": "x"}
        await self._assert_names(paths.LOGIN, body, "identifier", "type")

    @cases(
        *named(
            [
                ("user", {"type": "m.id.user"}),
                ("medium", {"type": "m.id.thirdparty", "address": "x@example.com"}),
                ("address", {"type": "m.id.thirdparty", "medium": "email"}),
                ("phone", {"type": "m.id.phone", "country": "GB"}),
                ("country", {"type": "m.id.phone", "phone": "07700900123"}),
            ]
        )
    )
    async def test_identifier_key(self, identifier: Named) -> None:
        """An identifier of its type needs its {}."""
        body = {"type": "m.login.password", "identifier": identifier.value, "password": "x"}
        await self._assert_names(paths.LOGIN, body, identifier.name)

    @cases(
        *named(
            [
                ("type", {"type": [], "user": "x"}),
                ("user", {"type": "m.id.user", "user": {}}),
                (
                    "medium",
                    {"type": "m.id.thirdparty", "medium": ["email"], "address": "x@example.com"},
                ),
                ("address", {"type": "m.id.thirdparty", "medium": "email", "address": 1}),
                ("phone", {"type": "m.id.phone", "country": "GB", "phone": 7700900123}),
                ("country", {"type": "m.id.phone", "country": 44, "phone": "07700900123"}),
            ]
        )
    )
    async def test_identifier_strings(self, identifier: Named) -> None:
        """The {} of an identifier must be a string."""
        body = {"type": "m.login.password", "identifier": identifier.value, "password": "x"}
        await self._assert_names(paths.LOGIN, body, identifier.name)
