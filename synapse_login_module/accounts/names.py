"""Finds the users that an operator means, by the rules of a login, without a password."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import ILinks
from synapse_login_module.model import Claim, UserId, canonical_email, fold

FindUsers = Callable[[str], Awaitable[list[str]]]
"""Finds the user IDs that an operator means by a user ID, a local part or an e-mail address.
Returns those that exist, the likeliest first, each once."""


def user_id_of(given: str, server_name: str) -> str:
    """Return the full user ID of what an operator typed.

    :param given: a full user ID or a local part.
    :raise ConfigError: when it is of another server.
    """
    typed = UserId.parse(given, server_name)
    if typed.server_name != server_name:
        raise ConfigError("", f"{typed} is no user of {server_name}")
    return str(typed)


def address_in(given: str) -> str | None:
    """Return the e-mail address that an operator typed, in the form in which addresses are
    compared; ``None`` when it is no address.
    """
    return None if given.startswith("@") else canonical_email(given)


def alike(user_id: str, known: Iterable[str]) -> list[str]:
    """Return the known user IDs that are equal when the case of ASCII letters is ignored.

    The one of the same spelling comes first, then the one in lower case.
    """
    folded = fold(user_id)
    found = {each for each in known if fold(each) == folded}
    return sorted(found, key=lambda each: (each != user_id, each != folded, each))


def meant(given: str, typed: str, known: Iterable[str]) -> list[str]:
    """Return the known user IDs that an operator means: the one that was typed in full, or else all
    of :func:`alike`.

    :param given: what the operator typed.
    :param typed: its full user ID.
    """
    found = alike(typed, known)
    return found[:1] if given.startswith("@") and typed in found else found


async def linked_by_name(
    given: str, links: ILinks, providers: Mapping[str, tuple[str, ...]]
) -> list[str]:
    """Find the users that provider accounts of a name are linked to, whatever their user IDs are.

    :param given: what the operator typed; its local part is the name.
    :param providers: by the current name of each configured provider, that name and its former
        ones.
    """
    name = UserId.parse(given, "").localpart
    found: dict[str, None] = {}
    for names in providers.values():
        for subject in dict.fromkeys((name, fold(name))):
            user_id = await links.linked_user(Claim(names, subject))
            if user_id is not None:
                found[user_id] = None
    return list(found)


def the_one(given: str, found: list[str], server_name: str) -> str | None:
    """Return the one user ID that an operator means, of those that were found.

    :param given: what the operator typed.
    :param found: the user IDs, the likeliest first.
    :return: ``None`` when none was found.
    :raise ConfigError: when several were found, and none is spelled as it was typed.
    """
    if len(found) < 2 or found[0] == str(UserId.parse(given, server_name)):
        return next(iter(found), None)
    raise ConfigError("", f"{given} may be {' or '.join(found)}: give the user ID")
