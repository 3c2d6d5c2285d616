"""Whom an operator names: found as logins find them, though nobody gives a password."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from synapse_login_module.errors import ConfigError
from synapse_login_module.interfaces import ILinks
from synapse_login_module.model import Claim, UserId, canonical_email, fold

FindUsers = Callable[[str], Awaitable[list[str]]]
"""Finds user IDs for what an operator typed: a user ID, a local part, or an e-mail address. Fires
with those that there are, the likeliest first, and none twice."""


def user_id_of(given: str, server_name: str) -> str:
    """The user ID that is typed.

    :raise ConfigError: when it is one of another server.
    """
    typed = UserId.parse(given, server_name)
    if typed.server_name != server_name:
        raise ConfigError("", f"{typed} is no user of {server_name}")
    return str(typed)


def address_in(given: str) -> str | None:
    """The e-mail address that is typed, in the form that addresses are compared in; ``None`` when
    it is none.
    """
    return None if given.startswith("@") else canonical_email(given)


def alike(user_id: str, known: Iterable[str]) -> list[str]:
    """Of the user IDs that are known, those that one login name may mean: the case of ASCII letters
    does not count. The one that is spelled like it comes first.
    """
    folded = fold(user_id)
    found = {each for each in known if fold(each) == folded}
    return sorted(found, key=lambda each: (each != user_id, each != folded, each))


def meant(given: str, typed: str, known: Iterable[str]) -> list[str]:
    """Of the user IDs that are known, those that an operator means: the one that was typed in full,
    or else those that one login name may mean.

    :param typed: the full user ID of what was given.
    """
    found = alike(typed, known)
    return found[:1] if given.startswith("@") and typed in found else found


async def linked_by_name(
    given: str, links: ILinks, providers: Mapping[str, tuple[str, ...]]
) -> list[str]:
    """Find the users who log in by a name that is not their own, since that account is linked to
    them.

    :param providers: the names of each configured provider, by its name today.
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
    """The one user who is meant, of those that were found.

    :return: ``None`` when none was found.
    :raise ConfigError: when several were, and none is spelled as it was typed.
    """
    if len(found) < 2 or found[0] == str(UserId.parse(given, server_name)):
        return next(iter(found), None)
    raise ConfigError("", f"{given} may be {' or '.join(found)}: give the user ID")
