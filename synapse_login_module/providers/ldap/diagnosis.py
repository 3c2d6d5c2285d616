"""The diagnosis of a directory: each of its servers, from the connection to a search."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from synapse_login_module.common.concurrency import at_once
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import failed, good, in_milliseconds, on_one_line, warning
from synapse_login_module.outbound.examining import advice_on_connecting, of_certificate
from synapse_login_module.providers.ldap.administrators import AdminGroup, proof
from synapse_login_module.providers.ldap.connection import (
    ENTRIES,
    Connection,
    LDAPServer,
    ServerFailed,
)
from synapse_login_module.providers.ldap.directory import Directory, Settings
from synapse_login_module.providers.ldap.filters import ANY
from synapse_login_module.providers.ldap.messages import Result, Search, search_request
from synapse_login_module.providers.ldap.result_codes import (
    NO_SUCH_OBJECT,
    SIZE_LIMIT_EXCEEDED,
    SUCCESS,
)
from synapse_login_module.providers.ldap.statuses import NO_ATTRIBUTES

_BIND = "correct bind_dn and bind_password (or bind_password_file)"
_START_TLS = "set up TLS at the server, or write ldaps:// in servers if it has that"
_READ = "correct base, or allow bind_dn to read there"


class DirectoryDiagnosis:
    """Examines the servers of a directory, on connections of its own.

    :param settings: how the directory is reached.
    :param base: the distinguished name that accounts are searched below; ``None`` for none.
    :param any_account: a search that finds some account; ``None`` if there can be none.
    :param groups: searches for each of the groups.
    :param clock: the wall clock, seconds since the epoch.
    :param admin_group: the group of server administrators; ``None`` for none.
    """

    def __init__(
        self,
        settings: Settings,
        base: str | None,
        any_account: Search | None,
        groups: Sequence[Search],
        reactor: Any,
        clock: Callable[[], float],
        admin_group: AdminGroup | None = None,
    ) -> None:
        self._settings = settings
        self._base = base
        self._any_account = any_account
        self._groups = groups
        self._reactor = reactor
        self._clock = clock
        self._admin_group = admin_group

    async def of_all(self) -> list[Finding]:
        """Examine all servers, side by side."""
        servers = self._settings.servers
        found = await at_once(len(servers), self._of_server, servers)
        return [each for findings in found for each in findings]

    async def _of_server(self, server: LDAPServer) -> list[Finding]:
        """Examine one server: connection, TLS, bind and searches."""
        directory = Directory(replace(self._settings, servers=[server]), self._reactor)
        began = time.perf_counter()
        try:
            connection = await directory.reach(server)
        except ServerFailed as problem:
            text = on_one_line(problem)
            refuses = "refuses StartTLS" in text
            advice = _START_TLS if refuses else advice_on_connecting(text, "servers")
            return [failed(server.url, text, advice)]
        findings = [good(server.url, f"connected in {_since(began)}")]
        try:
            if server.tls is not None:
                shown = connection.transport.getPeerCertificate()
                findings.append(of_certificate(shown, f"TLS of {server.host}", self._clock()))
            findings += await self._on(connection, directory)
        except ServerFailed as problem:
            text = on_one_line(problem)
            advice = _BIND if "bind_dn" in text else advice_on_connecting(text, "servers")
            findings.append(failed(server.url, text, advice))
        finally:
            connection.close()
        return findings

    async def _on(self, connection: Connection, directory: Directory) -> list[Finding]:
        began = time.perf_counter()
        await directory.bind_searcher(connection)
        name = self._settings.bind_dn
        findings = [good("bind", f"{name} is accepted in {_since(began)}")] if name else []
        if self._base is not None:
            search = Search(self._base, False, ANY, NO_ATTRIBUTES)
            result = await self._search(connection, search)
            problem = self._of_base(result)
            if problem is not None:
                return [*findings, problem]
        if self._any_account is not None:
            began = time.perf_counter()
            result = await self._search(connection, self._any_account)
            findings += self._of_accounts(self._any_account, result, _since(began))
        group = self._admin_group
        wanted = None if group is None else proof(group, self._any_account)
        if group is not None and wanted is not None:
            result = await self._search(connection, wanted)
            findings.append(self._of_admin_group(group, result))
        for each in self._groups:
            findings.append(self._of_group(each, await self._search(connection, each)))
        return findings

    async def _search(self, connection: Connection, search: Search) -> Result:
        seconds = self._settings.read_timeout
        return await connection.ask(search_request(search, ENTRIES, ceil(seconds)), seconds)

    def _of_base(self, result: Result) -> Finding | None:
        if result.code == SUCCESS and result.entries:
            return None
        if result.code in (SUCCESS, NO_SUCH_OBJECT):
            found = f"there is no {self._base}, or {self._reader} may not see it"
            return failed("base", found, _READ)
        return failed("base", f"the search of {self._base} is answered with {result}", _READ)

    def _of_accounts(self, search: Search, result: Result, took: str) -> Iterator[Finding]:
        if result.code not in (SUCCESS, SIZE_LIMIT_EXCEEDED):
            found = f"the search below {search.base!s} is answered with {result}"
            yield failed("search", found, _READ)
        elif not result.entries:
            yield warning(
                "search",
                f"{self._reader} sees no account below {search.base!s}",
                "allow bind_dn to read there, or correct filter, attributes.uid or base",
            )
        else:
            yield good("search", f"accounts are found below {search.base!s}, in {took}")

    def _of_group(self, search: Search, result: Result) -> Finding:
        if result.code == SUCCESS and result.entries:
            return good("group", f"{search.base!s} is found")
        if result.code in (SUCCESS, NO_SUCH_OBJECT):
            found = f"there is no {search.base!s}, or {self._reader} may not see it"
        else:
            found = f"the search of {search.base!s} is answered with {result}"
        return failed("group", found, "correct groups, or allow bind_dn to read there")

    def _of_admin_group(self, group: AdminGroup, result: Result) -> Finding:
        if result.entries:
            return good("admin_group", f"{group.text} is there")
        found = f"{group.text} has no member, or is not there, or {self._reader} may not see it"
        return warning("admin_group", found, "correct admin_group, or allow bind_dn to read there")

    @property
    def _reader(self) -> str:
        return self._settings.bind_dn or "a search without bind_dn"


def _since(began: float) -> str:
    return in_milliseconds(time.perf_counter() - began)
