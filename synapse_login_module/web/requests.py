"""Request bodies: from bytes to the domain's types, or to an error that names the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import unquote_to_bytes

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from twisted.web.http import Request

from synapse_login_module.config.validation import first_problem
from synapse_login_module.model import (
    EmailIdentifier,
    Identifier,
    LoginRequest,
    PasswordLogin,
    PhoneIdentifier,
    ServiceLogin,
    TokenLogin,
    UserId,
    UserIdentifier,
    canonical_email,
)
from synapse_login_module.web.phone import NotAPhoneNumber, to_msisdn
from synapse_login_module.web.responses import (
    BAD_LOGIN_TYPE,
    NOT_JSON,
    SERVICE_REFUSED,
    TOO_LARGE,
    ErrorResponse,
    bad_field,
)

MAX_BODY = 64 * 1024
MAX_DEVICE_ID = 512
"""The longest identifier of a device, in characters."""

_MAX_DISPLAY_NAME = 256

PASSWORD = "m.login.password"
TOKEN = "m.login.token"
SERVICE = "m.login.application_service"

_MAX_DEVICES = 1000


def _unicode(given: str) -> str:
    """Reject a lone surrogate, which JSON's escapes can spell and UTF-8 cannot encode."""
    if not given.isascii():
        try:
            given.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("not Unicode text") from None
    return given


def _without_nul(given: str) -> str:
    if "\0" in given:
        raise ValueError("holds a NUL character")
    return given


Text = Annotated[str, AfterValidator(_unicode)]
"""Text that can be encoded."""

Stored = Annotated[Text, AfterValidator(_without_nul)]
"""Text that a database takes."""


class Body(BaseModel):
    """A body: its types are strict, unknown keys are ignored, and no error quotes a value."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", hide_input_in_errors=True)


class LoginBody(Body):
    """The keys that every ``POST /login`` may have."""

    device_id: Annotated[Stored, Field(max_length=MAX_DEVICE_ID)] | None = None
    initial_device_display_name: Stored | None = None
    refresh_token: bool | None = None


class AnyIdentifier(Body):
    """An ``identifier`` of any type, whose known keys are text."""

    type: Text | None = None
    user: Text | None = None
    medium: Text | None = None
    address: Text | None = None
    country: Text | None = None
    phone: Text | None = None
    number: Text | None = None


class NamedBody(Body):
    """The keys by which a login names its user, where another module of Synapse reads them."""

    user: Text | None = None
    medium: Text | None = None
    address: Text | None = None
    identifier: AnyIdentifier | None = None


class ServiceBody(Body):
    """The further keys of ``m.login.application_service``."""

    user: Text | None = None
    identifier: dict[str, Any] | None = None


class LoginTokenBody(Body):
    """The further keys of ``m.login.token``."""

    token: str


class PasswordBody(Body):
    """The further keys of ``m.login.password``; the first three are the deprecated identifiers."""

    user: Text | None = None
    medium: Text | None = None
    address: Text | None = None
    identifier: dict[str, Any] | None = None
    password: Text


class _UserBody(Body):
    user: Text


class _ThirdPartyBody(Body):
    medium: Text
    address: Text


class _PhoneBody(Body):
    country: Text
    phone: Text


class AuthBody(Body):
    """The body of a request with user-interactive authentication."""

    auth: dict[str, Any] | None = None


class DevicesBody(AuthBody):
    """The body of ``POST /delete_devices``."""

    devices: Annotated[list[Stored], Field(max_length=_MAX_DEVICES)]


B = TypeVar("B", bound=Body)


def read_bytes(request: Request) -> bytes:
    """Read a request's body."""
    assert request.content is not None
    raw: bytes = request.content.read(MAX_BODY + 1)
    if len(raw) > MAX_BODY:
        raise ErrorResponse(TOO_LARGE)
    return raw


def read(request: Request, empty_is_object: bool = False) -> dict[str, Any]:
    """Read the JSON object of a request's body.

    :param empty_is_object: whether an empty body is taken for ``{}``.
    """
    raw = read_bytes(request)
    if empty_is_object and not raw:
        return {}
    try:
        payload = _DECODER.decode(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ErrorResponse(NOT_JSON) from None
    if not isinstance(payload, dict):
        raise bad_field("", "not an object")
    return payload


def last_segment(request: Request) -> str:
    """Read the last segment of the path, which is a parameter."""
    raw = unquote_to_bytes(request.path.rpartition(b"/")[2])
    try:
        return _without_nul(raw.decode("utf-8"))
    except ValueError:
        raise bad_field("", "the path is not text", "M_INVALID_PARAM") from None


def parse(model: type[B], payload: Mapping[str, Any], within: str = "") -> B:
    """Validate an object against a model.

    :param within: the path of the object in the body.
    """
    try:
        return model.model_validate(payload)
    except ValidationError as problem:
        path, message = first_problem(problem)
        raise bad_field(f"{within}.{path}" if within else path, message) from None


def login_type(payload: Mapping[str, Any]) -> str:
    """Read the ``type`` of a login."""
    return _required_text(payload, "type")


def refresh_token(request: Request) -> str:
    """Read the body of a refresh, which is one token."""
    return _required_text(read(request), "refresh_token")


def _required_text(payload: Mapping[str, Any], key: str) -> str:
    given = payload.get(key)
    if not isinstance(given, str):
        raise bad_field(key, "not a string" if key in payload else "Field required")
    return given


def login(
    payload: Mapping[str, Any], server_name: str, as_token: str | None = None
) -> LoginRequest:
    """Read the body of ``POST /login``.

    :param as_token: the token of the application service that logs a user in; ``None`` if such
        logins are of a type that is not known.
    """
    kind = login_type(payload)
    known = (PASSWORD, TOKEN) if as_token is None else (PASSWORD, TOKEN, SERVICE)
    if kind not in known:
        raise ErrorResponse(BAD_LOGIN_TYPE)
    common = parse(LoginBody, payload)
    credentials: PasswordLogin | TokenLogin | ServiceLogin
    if kind == PASSWORD:
        credentials = password(payload, server_name)
    elif kind == TOKEN or as_token is None:
        credentials = TokenLogin(parse(LoginTokenBody, payload).token)
    else:
        credentials = ServiceLogin(_service_user(payload, server_name), as_token)
    display_name = common.initial_device_display_name
    return LoginRequest(
        credentials,
        # All clients that send an empty one would share one device.
        common.device_id or None,
        display_name and display_name[:_MAX_DISPLAY_NAME],
        bool(common.refresh_token),
    )


def password(payload: Mapping[str, Any], server_name: str, within: str = "") -> PasswordLogin:
    """Read the identifier of the user, and the password.

    :param within: the path of the object in the body.
    """
    body = parse(PasswordBody, payload, within)
    return PasswordLogin(_identifier(body, server_name, within), body.password)


def _identifier(body: PasswordBody, server_name: str, within: str) -> Identifier:
    prefix = f"{within}." if within else ""
    if body.identifier is not None:
        return _modern(body.identifier, server_name, f"{prefix}identifier")
    if body.user is not None:
        return UserIdentifier(UserId.parse(body.user, server_name), body.user)
    if body.medium is None and body.address is None:
        raise bad_field(f"{prefix}identifier", "Field required")
    third_party = parse(
        _ThirdPartyBody,
        {
            key: value
            for key, value in (("medium", body.medium), ("address", body.address))
            if value is not None
        },
        within,
    )
    if third_party.medium != "email":
        _unknown_medium(f"{prefix}medium")
    return _email(third_party.address)


def _service_user(payload: Mapping[str, Any], server_name: str) -> UserId:
    """Read the user that an application service logs in."""
    body = parse(ServiceBody, payload)
    named = PasswordBody(user=body.user, identifier=body.identifier, password="")
    identifier = _identifier(named, server_name, "")
    if not isinstance(identifier, UserIdentifier):
        raise bad_field("identifier.type", "must be m.id.user", "M_INVALID_PARAM")
    user_id = identifier.user_id
    # With a colon it would be read as another user's, of a server of another name.
    if user_id.server_name != server_name or ":" in user_id.localpart:
        raise ErrorResponse(SERVICE_REFUSED)
    return user_id


def _modern(given: Mapping[str, Any], server_name: str, path: str) -> Identifier:
    kind = given.get("type")
    if not isinstance(kind, str):
        raise bad_field(f"{path}.type", "not a string" if "type" in given else "Field required")
    if kind == "m.id.user":
        typed = parse(_UserBody, given, path).user
        return UserIdentifier(UserId.parse(typed, server_name), typed)
    if kind == "m.id.thirdparty":
        third_party = parse(_ThirdPartyBody, given, path)
        if third_party.medium == "email":
            return _email(third_party.address)
        if third_party.medium == "msisdn":
            return _phone("", f"+{third_party.address}", f"{path}.address")
        _unknown_medium(f"{path}.medium")
    if kind == "m.id.phone":
        phone = parse(_PhoneBody, given, path)
        return _phone(phone.country, phone.phone, f"{path}.phone")
    raise bad_field(f"{path}.type", "not a known identifier type", "M_INVALID_PARAM")


def _email(address: str) -> EmailIdentifier:
    return EmailIdentifier(canonical_email(address) or address.strip())


def _phone(country: str, phone: str, path: str) -> PhoneIdentifier:
    try:
        return PhoneIdentifier(to_msisdn(country, phone))
    except NotAPhoneNumber as problem:
        raise bad_field(path, str(problem), "M_INVALID_PARAM") from None


def _unknown_medium(path: str) -> NoReturn:
    raise bad_field(path, "must be email", "M_UNKNOWN")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
