"""What the responses of an HTTP service say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable, UnusableAccount
from synapse_login_module.model import Account, AccountStatus, fold
from synapse_login_module.outbound.http import BackendResponse
from synapse_login_module.providers.http.config import REST_ANSWER, HTTPConfig
from synapse_login_module.providers.http.keys import AnswerPaths, as_text
from synapse_login_module.providers.http.templates import look_up
from synapse_login_module.providers.identifiers import (
    Named,
    named,
    named_as_typed,
    tagged_id,
)

_STATUSES: Mapping[str, AccountStatus | None] = {
    "active": AccountStatus.ACTIVE,
    "locked": AccountStatus.LOCKED,
    "deactivated": AccountStatus.DEACTIVATED,
    "unknown": None,
}


class Accepted(NamedTuple):
    """The service's response to a right password.

    :param given: the response's JSON; ``None`` if no value of it is used.
    :param who: the name of the account, and the user ID made from it.
    """

    given: Any
    who: Named


class Answers:
    """Reads responses, as the configuration says where their values are."""

    def __init__(self, config: HTTPConfig, server_name: str) -> None:
        self._config = config
        self._server_name = server_name

    def rejects(self, answer: BackendResponse) -> bool:
        """Say whether the body of a rejection means a wrong password (``reject_if``)."""
        wanted = self._config.keys.reject_if
        if not wanted:
            return True
        given = _parsed(answer)
        return any(as_text(look_up(given, path)) in values for path, values in wanted.items())

    def of_login(self, answer: BackendResponse, names: Mapping[str, str]) -> Accepted:
        """Read the response to a login.

        :param names: the names that were sent.
        :raise InvalidCredentials: when it says that the password is wrong.
        """
        where = self._config.answer
        _check_code(answer)
        given = None if where == AnswerPaths() else _json_of(answer)
        if where.success is not None:
            success = look_up(given, where.success)
            if not isinstance(success, bool):
                raise ProviderUnavailable(f"{where.success} is neither true nor false")
            if not success:
                raise InvalidCredentials
        return Accepted(given, self._who(given, names))

    def _who(self, given: object, asked: Mapping[str, str]) -> Named:
        """Read the account's name in the response, or use the name that was asked for."""
        where = self._config.answer
        name = None if where.user_id is None else look_up(given, where.user_id)
        # The REST password provider ignores the user ID, and some services leave it out.
        if where.user_id is None or (name is None and where is REST_ANSWER):
            return named_as_typed(asked["localpart"], self._server_name)
        who = named(name, self._server_name)
        if who is None:
            raise UnusableAccount(f"{where.user_id} is no user ID of this server")
        spelled = who.spelled(self._server_name)
        if where is REST_ANSWER and fold(spelled) == fold(asked["user_id"]):
            # Most services repeat the name that they were asked for, whatever their own spelling.
            return named_as_typed(asked["localpart"], self._server_name)
        return who

    def account(self, accepted: Accepted, user_id: str) -> Account:
        """Read the account of a login that the service accepted.

        :param user_id: the account's user ID.
        """
        where = self._config.answer
        given, who = accepted
        subject = who.name
        if where.subject is not None:
            found = tagged_id(look_up(given, where.subject))
            if found is None:
                raise UnusableAccount(f"{where.subject} is no id (text or a number)")
            subject = found
        status = None
        if where.status is not None and look_up(given, where.status) is not None:
            status = self._status_at(where.status, given)
        display_name = None if where.display_name is None else look_up(given, where.display_name)
        if not isinstance(display_name, str | None):
            raise UnusableAccount(f"{where.display_name} is not text")
        emails = () if where.emails is None else _texts(where.emails, look_up(given, where.emails))
        if where.three_pids is not None:
            emails += _emails(where.three_pids, look_up(given, where.three_pids))
        return Account(user_id, display_name or None, emails, status=status, subject=subject)

    def status(self, answer: BackendResponse) -> AccountStatus | None:
        """Read the status of an account."""
        return self._status_at(self._config.keys.status_path, _json_of(answer))

    def _status_at(self, path: str, given: object) -> AccountStatus | None:
        known = self._config.keys.status_values
        status = known.get(as_text(look_up(given, path)) or "")
        if status is None:
            raise UnusableAccount(f"{path} is none of {', '.join(known)}")
        return _STATUSES[status]


def _check_code(answer: BackendResponse) -> None:
    if not 200 <= answer.code <= 299:
        raise ProviderUnavailable(f"the service answered {answer.code}")


def _json_of(answer: BackendResponse) -> Any:
    _check_code(answer)
    return _parsed(answer)


def _parsed(answer: BackendResponse) -> Any:
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise ProviderUnavailable("the service's answer is not JSON") from None


def _texts(path: str, given: object) -> tuple[str, ...]:
    """Read one text, or a list of texts."""
    if given is None:
        return ()
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UnusableAccount(f"{path} is neither text nor a list of texts")
    return tuple(texts)


def _emails(path: str, given: object) -> tuple[str, ...]:
    """Read the e-mail addresses among the protocol's third-party identifiers."""
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise UnusableAccount(f"{path} is no list of objects")
    found = [each.get("address") for each in given if each.get("medium") == "email"]
    return _texts(f"{path}.address", found)
