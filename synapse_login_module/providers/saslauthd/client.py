"""Asking saslauthd over its Unix socket."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from synapse_login_module.errors import ProviderBusy, ProviderUnavailable, ProviderUnreachable
from synapse_login_module.outbound.cancellable import CancellableEndpoint
from synapse_login_module.providers.saslauthd.wire import (
    BadAnswer,
    Verdict,
    answer_in,
    question,
    verdict_of,
)


class _Question(Protocol):
    """Asks one question.

    :ivar answered: fires with the answer.
    """

    transport: Any

    def __init__(self, asked: bytes) -> None:
        self._asked = asked
        self._received = b""
        self.answered: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        """Ask."""
        self.transport.write(self._asked)

    def dataReceived(self, data: bytes) -> None:
        """Read, until the answer is complete."""
        self._received += data
        try:
            answer = answer_in(self._received)
        except BadAnswer:
            self._end(Failure())
        else:
            if answer is not None:
                self._end(answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail, unless the answer was complete."""
        self._end(Failure(ConnectionLost()))

    def _end(self, result: Any) -> None:
        if not self.answered.called:
            self.answered.callback(result)
        self.transport.abortConnection()


class SaslauthdClient:
    """Asks saslauthd, over a connection for each question.

    :param reactor: the reactor.
    :param path: the path of the socket.
    :param seconds: how long a question may take.
    :param connections: how many questions are asked at once.
    """

    def __init__(self, reactor: Any, path: str, seconds: float, connections: int) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._connections = connections
        self._under_way = 0
        self._endpoint = CancellableEndpoint(UNIXClientEndpoint(reactor, path, seconds))

    def ask(self, user: bytes, password: bytes, service: bytes, realm: bytes) -> Deferred[Verdict]:
        """Ask whether a password is right.

        :return: fails with :class:`~synapse_login_module.errors.ProviderUnavailable` when saslauthd
            does not decide.
        """

        def too_late(_: Any, seconds: float) -> Failure:
            return Failure(ProviderUnavailable(f"saslauthd did not answer in {seconds:g} seconds"))

        asked = Deferred.fromCoroutine(self._ask(question(user, password, service, realm)))
        return asked.addTimeout(self._seconds, self._reactor, onTimeoutCancel=too_late)

    async def _ask(self, asked: bytes) -> Verdict:
        if self._under_way >= self._connections:
            raise ProviderBusy(f"{self._under_way} questions are under way already")
        self._under_way += 1
        protocol = _Question(asked)
        try:
            await connectProtocol(self._endpoint, protocol)
            return verdict_of(await protocol.answered)
        except ConnectError as error:
            if isinstance(error.args[0], Failure):  # EAGAIN, which Twisted has no error for
                raise ProviderBusy("too many connections wait for saslauthd") from None
            raise ProviderUnreachable(f"saslauthd: {error}") from None
        except ConnectionLost:
            raise ProviderUnavailable("saslauthd closed the connection") from None
        except BadAnswer as error:
            raise ProviderUnavailable(str(error)) from None
        finally:
            self._under_way -= 1
            if protocol.transport is not None:
                protocol.transport.abortConnection()
