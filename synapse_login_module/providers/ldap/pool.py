"""A pool of connections, and a queue for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred, fail

from synapse_login_module.errors import ProviderBusy
from synapse_login_module.providers.ldap.connection import Connection


class Pool:
    """A bounded pool of connections for one purpose, with a bounded queue.

    :param size: how many connections may be in use at once.
    :param queue: how many callers may wait for one.
    :param connect: opens a connection.
    :param usable: says whether an idle connection may be used again.
    """

    def __init__(
        self,
        size: int,
        queue: int,
        connect: Callable[[], Awaitable[Connection]],
        usable: Callable[[Connection], bool],
    ) -> None:
        self._free = size
        self._queue = queue
        self._connect = connect
        self._usable = usable
        self._idle: list[Connection] = []
        self._waiting: deque[Deferred[None]] = deque()

    async def take(self) -> Connection:
        """Take a connection for one operation.

        :raise ProviderBusy: when the queue is full.
        :raise ProviderUnavailable: when no server can be reached.
        """
        if self._free:
            self._free -= 1
        else:
            await self._turn()
        try:
            while self._idle:
                connection = self._idle.pop()
                if self._usable(connection):
                    return connection
                connection.close()
            return await self._connect()
        except BaseException:
            self._next()
            raise

    def put(self, connection: Connection, now: float) -> None:
        """Give a connection back. One that is over is dropped, so that another can be opened.

        :param now: the time in seconds.
        """
        if not connection.over:
            connection.used = True
            connection.idle_since = now
            self._idle.append(connection)
        self._next()

    def give_up(self, problem: Exception) -> None:
        """Fail all callers that wait."""
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            each.errback(problem)

    def _turn(self) -> Deferred[None]:
        if len(self._waiting) >= self._queue:
            return fail(ProviderBusy(f"LDAP: {len(self._waiting)} are waiting already"))
        turn: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(turn)
        return turn

    def _next(self) -> None:
        if self._waiting:
            self._waiting.popleft().callback(None)
        else:
            self._free += 1
