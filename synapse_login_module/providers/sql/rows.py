"""Reading the rows that an operator's queries return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from synapse_login_module.config.validation import first_problem
from synapse_login_module.errors import UnusableAccount
from synapse_login_module.model import AccountStatus
from synapse_login_module.providers.identifiers import Named, named, tagged_id


def _flag(given: object) -> bool:
    if given is None or given in (0, 1):
        return bool(given)
    raise ValueError("not true, false, 1, 0 or NULL")


def _addresses(given: object) -> object:
    if given is None:
        return ()
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, list) or not all(isinstance(each, str) for each in parts):
        raise ValueError("neither text nor an array of texts")
    return tuple(each.strip() for each in parts if each.strip())


_Flag = Annotated[bool, BeforeValidator(_flag)]


class Row(BaseModel):
    """The row of one account. Other columns are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, hide_input_in_errors=True)

    user_id: str | None = None
    localpart: str | None = None
    password_hash: str | None = None
    display_name: str | None = None
    emails: Annotated[tuple[str, ...], BeforeValidator(_addresses)] = ()
    locked: _Flag = False
    deactivated: _Flag = False
    subject: object = None

    @property
    def status(self) -> AccountStatus:
        """The status of the account."""
        if self.deactivated:
            return AccountStatus.DEACTIVATED
        return AccountStatus.LOCKED if self.locked else AccountStatus.ACTIVE


class Found(NamedTuple):
    """An account that a query found.

    :param row: its row.
    :param who: its name, and the user ID made from it.
    :param spelled: its name as a full user ID, spelled as it is stored.
    :param subject: its subject: the tagged id, or the name if the row has no column ``subject``.
    :param has_subject: whether the row has a column ``subject``.
    """

    row: Row
    who: Named
    spelled: str
    subject: str
    has_subject: bool


def read_row(query: str, given: Mapping[str, Any], server_name: str, nameless: bool) -> Found:
    """Read a row.

    :param query: the name of the query that returned it.
    :param given: the values, by column.
    :param nameless: whether the row may lack a name, since the query was by subject.
    :raise UnusableAccount: when it is not the row of an account.
    """
    try:
        row = Row.model_validate(given)
    except ValidationError as error:
        raise UnusableAccount(f"queries.{query}: {': '.join(first_problem(error))}") from None
    name = row.user_id or row.localpart
    who = Named("", None) if name is None and nameless else named(name, server_name)
    if who is None:
        problem = "localpart or user_id is not a name of this server"
        raise UnusableAccount(f"queries.{query}: {problem}")
    has_subject = "subject" in row.model_fields_set
    subject = tagged_id(row.subject) if has_subject else who.name
    if subject is None:
        raise UnusableAccount(f"queries.{query}: subject is no id (text or a number)")
    return Found(row, who, who.spelled(server_name), subject, has_subject)
