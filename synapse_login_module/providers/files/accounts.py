"""The base class of the providers of accounts in a file, which does all but parse the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from synapse_login_module.config.files import ReadFile, WatchedFile
from synapse_login_module.errors import ConfigError, InvalidCredentials
from synapse_login_module.interfaces import IDiagnosable, IPasswordProvider, IWatchedAccounts
from synapse_login_module.model import Account, AccountStatus, Finding, Identifier, UserId
from synapse_login_module.model.findings import good, warning
from synapse_login_module.plugin import Environment
from synapse_login_module.providers.files.users import UserIndex
from synapse_login_module.providers.identifiers import Named, user_id_from


@dataclass(frozen=True)
class FileConfig:
    """The checked configuration of a :class:`FileProvider`.

    :param directory: the accounts at the start.
    :param pepper: the text that is appended to each password before hashing.
    :param file: the file of the accounts; ``None`` when they are in the configuration.
    :param normalize: whether NFKC is applied to passwords before hashing; ``None`` for the rule of
        each hash.
    """

    directory: UserIndex = field(repr=False)
    pepper: str = field(repr=False)
    file: ReadFile[UserIndex] | None
    normalize: bool | None = None


@implementer(IPasswordProvider, IWatchedAccounts, IDiagnosable)
class FileProvider:
    """Checks passwords against the accounts of a file, which is read again when it changes.

    A new version with a mistake in it is logged, and the last good one kept.
    """

    log = Logger()
    name: str

    def __init__(self, config: FileConfig, environment: Environment) -> None:
        self._directory = config.directory
        self._pepper = config.pepper
        self._normalize = config.normalize
        self._file = config.file
        self._watched = None if config.file is None else self._watch(config.file, environment)
        self._hashing = environment.hashing
        self._server_name = environment.server_name
        self._tell_kind(config.directory)

    def authenticate(self, identifier: Identifier, password: str) -> Deferred[Account | None]:
        """Check a password; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return Deferred.fromCoroutine(self._authenticate(identifier, password))

    def account_status(self, subject: str) -> Deferred[AccountStatus | None]:
        """Look at an account; see :class:`~synapse_login_module.interfaces.IPasswordProvider`."""
        return self._current().addCallback(self._status_in, subject)

    def version(self) -> object:
        """Return a value that changes with the file; see
        :class:`~synapse_login_module.interfaces.IWatchedAccounts`.
        """
        return "configured" if self._watched is None else self._watched.version()

    def count_accounts(self) -> Deferred[int]:
        """Fire with the number of accounts."""
        return self._current().addCallback(lambda directory: len(directory.users))

    def diagnose(self) -> Deferred[list[Finding]]:
        """Count the accounts; see :class:`~synapse_login_module.interfaces.IDiagnosable`."""
        what = "the configuration" if self._file is None else str(self._file.path)
        return self._current().addCallback(lambda directory: list(self._examine(what, directory)))

    def _examine(self, what: str, directory: UserIndex) -> Iterator[Finding]:
        users = directory.users.values()
        active = sum(user.status is AccountStatus.ACTIVE for user in users)
        accounts = "1 account" if len(users) == 1 else f"{len(users)} accounts"
        if not active:
            found = f"{accounts}, and none that may log in"
            yield warning(what, found, "add an account, or unlock one")
        else:
            yield good(what, f"{accounts}, of which {active} may log in")
        weak = {kind: count for kind, count in directory.kinds.items() if kind.is_weak}
        if weak:
            kinds = ", ".join(sorted(map(str, weak)))
            found = f"{sum(weak.values())} that are guessed fast if stolen: {kinds}"
            yield warning("hashes", found, "set these passwords anew, with hash-password")

    def _status_in(self, directory: UserIndex, subject: str) -> AccountStatus | None:
        parsed = UserId.parse(subject, self._server_name)
        known = parsed.server_name == self._server_name
        user = directory.users.get(parsed.localpart) if known else None
        return None if user is None else user.status

    async def _authenticate(self, identifier: Identifier, password: str) -> Account | None:
        directory = await self._current()
        name = directory.find(identifier, self._server_name)
        if name is None:
            return None
        user = directory.users[name]
        who = Named(name, user_id_from(name, self._server_name))
        if not await self._hashing.check(
            password, user.password_hash, self._pepper, self._normalize
        ):
            raise InvalidCredentials(user_id=who.user_id)
        return Account(
            who.require_user_id(self.log, self.name),
            user.display_name,
            user.emails,
            status=user.status,
            subject=name,
        )

    def _current(self) -> Deferred[UserIndex]:
        """Fire with the current accounts."""
        if self._watched is None:
            return succeed(self._directory)
        return self._watched.current().addCallback(self._take_over)

    def _take_over(self, directory: UserIndex) -> UserIndex:
        if directory is not self._directory:
            self._directory = directory
            self._tell_kind(directory)
        return directory

    def _tell_kind(self, directory: UserIndex) -> None:
        for kind, _ in directory.kinds.most_common(1):
            self._hashing.report_kind(kind.ruled(self._normalize, self._pepper), self)

    def _watch(self, file: ReadFile[UserIndex], environment: Environment) -> WatchedFile[UserIndex]:
        """Watch a file. A version that has lost its last account counts as a mistake, since it
        would end all sessions.
        """
        if not file.value.users:
            self.log.warn("{path} holds no account: no user can log in by it", path=file.path)

        def read(path: Path) -> UserIndex:
            directory = file.read(path)
            if not directory.users:
                raise ConfigError("", "it holds no account any more")
            return directory

        return replace(file, read=read).watch(environment.reactor)
