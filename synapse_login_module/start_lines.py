"""The lines that say what a server is, at its start and after a reload: one for each fact."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from twisted.copyright import version as twisted_version
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel

from synapse_login_module import __version__
from synapse_login_module.audit import LINE
from synapse_login_module.compose import LoadedPlugin
from synapse_login_module.config.settings import ProviderPlugin
from synapse_login_module.errors import described
from synapse_login_module.providers.files.accounts import FileConfig, FileProvider

_log = Logger()


@dataclass(frozen=True)
class Fact:
    """One line.

    :param name: ``version``, ``listen``, ``store``, ``providers`` or ``homeserver``.
    :param text: the fact as a sentence.
    :param fields: the same for programs; JSON can hold them.
    """

    name: str
    text: str
    fields: Mapping[str, object]


def say(facts: Sequence[Fact], at: str, emit: Callable[..., None] | None = None) -> None:
    """Log facts.

    :param at: ``start`` or ``reload``.
    :param emit: writes a line; it takes the arguments of :meth:`twisted.logger.Logger.emit`.
    """
    for fact in facts:
        line = f"{at}: {fact.text}"
        (emit or _log.emit)(LogLevel.info, LINE, line=line, at=at, fact=fact.name, **fact.fields)


def version() -> Fact:
    """Return the versions of this package, of Python and of Twisted."""
    fields = {
        "version": __version__,
        "python": platform.python_version(),
        "twisted": twisted_version,
    }
    text = "synapse_login_module {version}, Python {python}, Twisted {twisted}".format(**fields)
    return Fact("version", text, fields)


def listening(public: Sequence[str], internal: Sequence[str], base: str | None) -> Fact:
    """Return where a server listens.

    :param public: the URLs that clients connect to.
    :param internal: the URLs that the homeserver and Prometheus connect to.
    :param base: the URL that clients are told, if it is configured.
    """
    text = f"listens at {', '.join(public)}"
    if internal:
        text += f", internally at {', '.join(internal)}"
    if base is not None:
        text += f"; its public URL is {base}"
    fields = {"urls": list(public), "internal_urls": list(internal), "public_baseurl": base}
    return Fact("listen", text, fields)


def store(kind: str, where: str | None) -> Fact:
    """Return where the sessions are kept.

    :param kind: the kind of store, such as the name of its class.
    :param where: the place, without secrets; ``None`` if it is not known.
    """
    text = f"sessions are kept in {kind}" + (f", {where}" if where else "")
    return Fact("store", text, {"store": kind, "where": where})


def kept_in(loaded: LoadedPlugin) -> Fact:
    """Return where a token store keeps the sessions, as its class describes it."""
    cls, config = loaded
    where = None
    if hasattr(cls, "describe"):
        try:
            where = str(cls.describe(config))
        except Exception as error:  # of a third party's store: it must not keep the server away
            where = f"it cannot say where: {described(error)}"
    return store(cls.__name__, where)


def accounts_at_start(providers: Sequence[LoadedPlugin]) -> list[int | None]:
    """Return how many accounts each provider had when its configuration was read.

    Files know it. A directory, a database or a service does not: ``None``.
    """
    return [
        len(config.directory.users) if isinstance(config, FileConfig) else None
        for _, config in providers
    ]


def accounts_now(providers: Sequence[object]) -> Deferred[list[int | None]]:
    """Fire with how many accounts each provider has now, after reading changed files again."""

    async def count() -> list[int | None]:
        return [
            await each.count_accounts() if isinstance(each, FileProvider) else None
            for each in providers
        ]

    return Deferred.fromCoroutine(count())


def providers(
    plugins: Sequence[ProviderPlugin],
    loaded: Sequence[LoadedPlugin],
    accounts: Sequence[int | None],
) -> Fact:
    """Return who checks the passwords, in the order in which they are asked.

    :param plugins: the entries of ``password_providers``.
    :param loaded: their classes and checked configurations.
    :param accounts: how many accounts each has; ``None`` where that is not known.
    """
    found = [
        {"name": plugin.name or cls.name, "kind": cls.__name__, "accounts": count}
        for plugin, (cls, _), count in zip(plugins, loaded, accounts, strict=True)
    ]
    text = ", ".join(
        _described(each["name"], each["kind"], count)
        for each, count in zip(found, accounts, strict=True)
    )
    return Fact("providers", f"passwords are checked by {text}", {"providers": found})


def _described(name: object, kind: object, accounts: int | None) -> str:
    if accounts is None:
        return f"{name} ({kind})"
    return f"{name} ({kind}, {accounts} account{'' if accounts == 1 else 's'})"


def homeserver(server_name: str, url: str | None, delegated: bool) -> Fact:
    """Return which homeserver accepts the tokens.

    :param url: its base URL; ``None`` where there is no homeserver, or its URL is not known.
    :param delegated: whether it delegates authentication to this server.
    """
    at = f" at {url}" if url else ""
    if delegated:
        text = f"the homeserver {server_name}{at} delegates authentication to this server"
    elif url:
        text = f"the homeserver is {server_name}{at}"
    else:
        text = f"there is no homeserver; users are of {server_name}"
    fields = {"server_name": server_name, "homeserver": url, "delegated": delegated}
    return Fact("homeserver", text, fields)


def stopped(emit: Callable[..., None] | None = None) -> None:
    """Log that a server has stopped as it was told to."""
    text = f"stop: synapse_login_module {__version__} has answered its requests and stopped"
    (emit or _log.emit)(LogLevel.info, LINE, line=text, at="stop", version=__version__)
