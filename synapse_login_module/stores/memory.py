"""The token store in memory, for tests and demonstrations. Its sessions end with the process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, execute, succeed
from zope.interface import provider

from synapse_login_module.errors import ConfigError
from synapse_login_module.model import Claim, Finding, Link, Session, TokenKey
from synapse_login_module.model.findings import warning
from synapse_login_module.plugin import Environment, IDiagnosableClass, IPluginClass
from synapse_login_module.stores.imported import ImportingTokenStore
from synapse_login_module.stores.memory_housekeeping import MemoryHousekeeping
from synapse_login_module.stores.memory_imported import MemoryImportedTokens
from synapse_login_module.stores.memory_notes import MemoryNotes
from synapse_login_module.stores.rows import LoginTokenRow, Rows

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")


class MemoryDatabase:
    """Rows in dictionaries; a :class:`~synapse_login_module.stores.rows.Database`.

    :ivar notes: what is kept for a homeserver.
    """

    writes_once = False

    def __init__(self) -> None:
        self.notes = MemoryNotes(self._has_session)
        self._sessions: dict[int, Session] = {}
        self._devices: dict[str, dict[str, int]] = {}
        self._login_tokens: dict[int, LoginTokenRow] = {}
        self._links: dict[str, Link] = {}
        self._linked: dict[tuple[str, str], Link] = {}
        self._keys: dict[int, TokenKey] = {}

    def run(self, work: Callable[[Rows], T]) -> Deferred[T]:
        """Run the work at once."""
        return execute(work, self)

    def read(self, work: Callable[[Rows], T]) -> Deferred[T]:
        """Run the work at once."""
        return self.run(work)

    def session(self, session_id: int) -> Session | None:
        """Read one session."""
        return self._sessions.get(session_id)

    def is_free(self, session_id: int) -> bool:
        """Return whether no session has a number."""
        return session_id not in self._sessions

    def reread(self, session_id: int) -> Session | None:
        """Read one session, which is never cached here."""
        return self.session(session_id)

    def together(self, first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
        """Run two reads, one after the other."""
        return first(), second()

    def owner(self, session_id: int) -> tuple[Session, Link | None] | None:
        """Read one session and the link of its user."""
        session = self._sessions.get(session_id)
        return None if session is None else (session, self._links.get(session.user_id))

    def sessions(self, user_id: str | None) -> list[Session]:
        """Read the sessions of a user, or all sessions."""
        wanted = self._sessions if user_id is None else self._devices.get(user_id, {}).values()
        return sorted(
            (self._sessions[each] for each in wanted),
            key=lambda row: (row.created_at, row.session_id),
        )

    def page(self, user_id: str | None, after: int, most: int) -> list[Session]:
        """Read sessions in the order of their numbers."""
        later = [each for each in self.sessions(user_id) if each.session_id > after]
        return sorted(later, key=lambda row: row.session_id)[:most]

    def insert(
        self,
        session: Session,
        link: Link | None = None,
        new: bool = False,
        reserved: bool = False,
    ) -> None:
        """Insert a session, and delete the earlier one of its user and device."""
        if session.session_id in self._sessions:
            raise ValueError("session id in use")
        if reserved:
            self.notes.remove(session.user_id, session.device_id)
        if link is not None and new:
            self.insert_link(link, session.created_at, ())
        devices = self._devices.setdefault(session.user_id, {})
        earlier = devices.get(session.device_id)
        if earlier is not None:
            del self._sessions[earlier]
        devices[session.device_id] = session.session_id
        self._sessions[session.session_id] = session

    def compare_and_swap(self, old: Session, new: Session) -> bool:
        """Write a session's row, unless it has changed."""
        if self._sessions.get(old.session_id) != old:
            return False
        self._sessions[old.session_id] = new
        return True

    def delete(self, session_id: int, note: int | None = None) -> None:
        """Delete one session."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            if note is not None:
                self.notes.note(session.user_id, session.device_id, note)
            devices = self._devices[session.user_id]
            del devices[session.device_id]
            if not devices:
                del self._devices[session.user_id]

    def delete_user(self, user_id: str, note: int | None = None) -> int:
        """Delete a user's sessions and login tokens."""
        deleted = list(self._devices.get(user_id, {}).values())
        for session_id in deleted:
            self.delete(session_id, note)
        self._delete_login_tokens(user_id)
        return len(deleted)

    def delete_device(self, user_id: str, device_id: str, note: int) -> None:
        """Delete the session of a device, and note the device."""
        if self._has_session(user_id, device_id):
            self.delete(self._devices[user_id][device_id])
        self.notes.note(user_id, device_id, note)

    def is_reserved(self, user_id: str, device_id: str) -> bool:
        """Return whether a device is reserved."""
        return self.notes.is_reserved(user_id, device_id)

    def _has_session(self, user_id: str, device_id: str) -> bool:
        return device_id in self._devices.get(user_id, {})

    def links_of(self, user_id: str | None, claim: Claim | None) -> list[Link]:
        """Read the link of a user ID, and the links of a claim."""
        found = [] if user_id is None else [self._links.get(user_id)]
        if claim is not None:
            found += [self._linked.get((name, claim.subject)) for name in claim.providers]
        return [link for link in found if link is not None]

    def links(self) -> list[Link]:
        """Read all links."""
        return sorted(self._links.values())

    def insert_link(self, link: Link, linked_at: int, instead_of: Sequence[Link]) -> None:
        """Insert a link, after deleting others. ``linked_at`` is not kept."""
        for each in instead_of:
            self.delete_link(each)
        if link.user_id in self._links or (link.provider, link.subject) in self._linked:
            raise ValueError("linked already")
        self._links[link.user_id] = self._linked[link.provider, link.subject] = link

    def delete_link(self, link: Link) -> None:
        """Delete a link, the login tokens of its user, and the reservation of the name."""
        self.notes.free_name(link.user_id)
        del self._links[link.user_id], self._linked[link.provider, link.subject]
        self._delete_login_tokens(link.user_id)

    def token_keys(self) -> list[TokenKey]:
        """Read the keys."""
        return sorted(self._keys.values())

    def insert_keys(self, keys: Sequence[TokenKey]) -> None:
        """Insert the keys whose ids do not exist yet."""
        self._keys = {**{key.key_id: key for key in keys}, **self._keys}

    def retire_key(self, key_id: int) -> bool:
        """Mark a key as retired."""
        key = self._keys.get(key_id)
        if key is not None:
            self._keys[key_id] = key._replace(retired=True)
        return key is not None

    def login_token(self, token_id: int) -> LoginTokenRow | None:
        """Read one login token."""
        return self._login_tokens.get(token_id)

    def insert_login_token(self, row: LoginTokenRow, now: int) -> None:
        """Insert a login token and delete the expired ones."""
        live = {key: each for key, each in self._login_tokens.items() if each.expires_at > now}
        self._login_tokens = {**live, row.token_id: row}

    def login_tokens(self) -> list[LoginTokenRow]:
        """Read all login tokens."""
        return list(self._login_tokens.values())

    def delete_login_token(self, token_id: int) -> bool:
        """Delete one login token."""
        return self._login_tokens.pop(token_id, None) is not None

    def _delete_login_tokens(self, user_id: str) -> None:
        self._login_tokens = {
            key: each for key, each in self._login_tokens.items() if each.user_id != user_id
        }


@provider(IPluginClass, IDiagnosableClass)
class MemoryTokenStore(ImportingTokenStore):
    """The store of derived tokens over :class:`MemoryDatabase`. It has no configuration keys."""

    one_process = True

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> None:
        """Reject every key; see :class:`~synapse_login_module.plugin.IPluginClass`."""
        for key in config:
            raise ConfigError(str(key), "unknown key")

    @staticmethod
    def describe(config: None) -> str:
        """Warn of the end; see :class:`~synapse_login_module.plugin.IPluginClass`."""
        return "which forgets them when this process ends"

    @staticmethod
    def diagnose(config: None, environment: Environment) -> Deferred[list[Finding]]:
        """See :class:`~synapse_login_module.plugin.IDiagnosableClass`."""
        lost = "a restart ends every session"
        return succeed([warning("memory", lost, "use it to try things; else name another store")])

    def __init__(self, config: None, environment: Environment) -> None:
        database = MemoryDatabase()
        self.housekeeping = MemoryHousekeeping(database)
        self.imported = MemoryImportedTokens(database, database.notes.is_owed)
        self.notes = database.notes
        super().__init__(
            database,
            environment.required_keys,
            environment.policy,
            environment.clock,
            environment.random,
            environment.delegated,
        )
