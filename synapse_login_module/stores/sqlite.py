"""The token store in an SQLite file, which is the default."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from zope.interface import implementer, provider

from synapse_login_module.common.daemon_thread import in_daemon_thread
from synapse_login_module.config.files import is_there
from synapse_login_module.config.validation import FilePath, Strict, config_path, validate
from synapse_login_module.errors import ConfigError
from synapse_login_module.metrics.recording import Metrics
from synapse_login_module.model import Finding
from synapse_login_module.plugin import Environment, IDiagnosableClass, IPluginClass
from synapse_login_module.stores.group_commit import GroupCommitThread
from synapse_login_module.stores.imported import ImportingTokenStore
from synapse_login_module.stores.rows import Rows
from synapse_login_module.stores.sqlite_checkpoints import Checkpoints
from synapse_login_module.stores.sqlite_connection import connect
from synapse_login_module.stores.sqlite_diagnosis import examine
from synapse_login_module.stores.sqlite_file import check, prepare, version_at
from synapse_login_module.stores.sqlite_housekeeping import SQLiteHousekeeping, SQLiteReader
from synapse_login_module.stores.sqlite_imported import SQLiteImportedTokens
from synapse_login_module.stores.sqlite_rows import SQLiteRows
from synapse_login_module.stores.sqlite_warm import ReadsWarmSessions
from synapse_login_module.stores.table_notes import TableNotes

T = TypeVar("T")


class SQLiteDatabase:
    """A :class:`~synapse_login_module.stores.rows.Database` over one file and three threads.

    :ivar reader: the thread that reads.
    """

    def __init__(self, path: Path, reactor: Any, metrics: Metrics) -> None:
        self._checkpoints = Checkpoints(lambda: connect(path, timeout=0, creates=False))
        self.thread = GroupCommitThread(
            self._checkpoints.connect,
            reactor.callFromThread,
            reactor.callLater,
            metrics,
            self._checkpoints.committed,
        )
        self.reader = SQLiteReader(lambda: connect(path, creates=False), reactor)

    def start(self) -> None:
        """Start the threads that write."""
        self._checkpoints.start()
        self.thread.start()

    def stop(self) -> None:
        """Run the waiting work and close the file. Blocks until then."""
        self.thread.stop()
        self._checkpoints.stop()

    def run(self, work: Callable[[Rows], T]) -> Deferred[T]:
        """Run the work on the thread, in the next transaction."""
        return self.thread.run(lambda connection: work(SQLiteRows(connection)))

    def read(self, work: Callable[[Rows], T]) -> Deferred[T]:
        """Run the work on the thread that reads. In WAL mode, writers do not wait for it."""
        return self.reader.run(lambda connection: work(SQLiteRows(connection)))

    def write(self) -> Deferred[None]:
        """Write to the file without changing its content, in the next transaction."""
        return self.thread.run(_write_version_again)


def _write_version_again(connection: sqlite3.Connection) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute(f"PRAGMA user_version = {version}")


class SQLiteConfig(Strict):
    """The configuration of :class:`SQLiteTokenStore`."""

    path: FilePath


@implementer(IService)
@provider(IPluginClass, IDiagnosableClass)
class SQLiteTokenStore(ReadsWarmSessions, ImportingTokenStore, Service):
    """The store of derived tokens in an SQLite file.

    Its threads run from ``startService`` to ``stopService``. Requests from before ``startService``
    wait for it.
    """

    @staticmethod
    def parse_config(config: Mapping[str, Any], folder: Path) -> Path:
        """Check ``path``; see :class:`~synapse_login_module.plugin.IPluginClass`."""
        path = folder / validate(SQLiteConfig, config).path
        check(path)
        return path

    @staticmethod
    def describe(config: Path) -> str:
        """Return the path; see :class:`~synapse_login_module.plugin.IPluginClass`."""
        return str(config.absolute())

    @staticmethod
    def require_existing(config: Path) -> None:
        """Reject a file that no server has used.

        See :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        if not config_path("path", is_there, config):
            raise ConfigError(
                "path", f"there is no {config}: the server makes it at its first start"
            )
        if not version_at(config):
            raise ConfigError("path", f"{config} is no database of sessions")

    @staticmethod
    def diagnose(config: Path, environment: Environment) -> Deferred[list[Finding]]:
        """Examine the file; see :class:`~synapse_login_module.plugin.IDiagnosableClass`."""
        return in_daemon_thread(environment.reactor, lambda: examine(config, environment))

    def __init__(self, config: Path, environment: Environment) -> None:
        prepare(config, environment.read_only)
        self._path = config
        self._sqlite = SQLiteDatabase(config, environment.reactor, environment.metrics)
        self._reader = self._sqlite.reader
        self.housekeeping = SQLiteHousekeeping(self._reader, self._sqlite.thread)
        self.imported = SQLiteImportedTokens(self._reader, self._sqlite.thread)
        self.notes = TableNotes(self.housekeeping)
        super().__init__(
            self._sqlite,
            environment.required_keys,
            environment.policy,
            environment.clock,
            environment.random,
            environment.delegated,
        )

    def startService(self) -> None:
        """Start the threads."""
        Service.startService(self)
        self._sqlite.start()
        self._reader.start()
        self._open_warm(self._path, SQLiteRows)

    def _probe(self) -> Deferred[None]:
        """Check that the file can be written to. On a full disk it can still be read."""
        return self._sqlite.write()

    def stopService(self) -> None:
        """Run the waiting work and close the file. Blocks until then."""
        Service.stopService(self)
        self._close_warm()
        self._reader.stop()
        self._sqlite.stop()
