"""A Matrix client that records every request and response."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.web._newclient import RequestNotSent
from twisted.web.client import RequestTransmissionFailed, ResponseFailed

from tests.chaos.history import History, Pair, Request, Use
from tests.chaos.server import PASSWORD, USER
from tests.support import client
from tests.support.response import Response

_OUTAGE = 503
_BROKEN = (ConnectionClosed, RequestNotSent, RequestTransmissionFailed, ResponseFailed)


class RecordingClient:
    """Talks to one server, which may be killed at any moment.

    :param port: the server's port.
    :param history: records every request.
    :param outages: whether to expect a 503. A request that got a 503, or no response, may still be
        carried out later by a database that has received it.
    :ivar surprises: the responses that were neither a success nor a refusal.
    """

    def __init__(self, port: int, history: History, outages: bool = False) -> None:
        self._http = client.Client(
            f"http://127.0.0.1:{port}/_matrix/client/v3",
            connections=64,
            timeout=None,
            retry=False,
        )
        self._history = history
        self._outages = outages
        self.surprises: list[str] = []

    def close(self) -> Deferred[None]:
        """Close the connections."""
        return self._http.close()

    async def log_in(self, device_id: str) -> Pair | None:
        """Log in. A login whose response is lost is not recorded."""
        body = {
            "type": "m.login.password",
            "user": USER,
            "password": PASSWORD,
            "device_id": device_id,
            "refresh_token": True,
        }
        try:
            answer = await self._http.send("POST", "/login", body)
        except (ConnectError, *_BROKEN):
            return None
        if answer.status != 200:
            if not (self._outages and answer.status == _OUTAGE):
                self.surprises.append(str(answer))
            return None
        pair = _pair(answer)
        self._history.logged_in(device_id, pair)
        return pair

    async def use(self, session: str, pair: Pair, use: Use) -> Request:
        """Present a pair, and record the outcome."""
        method = "GET" if use is Use.LOOK_UP else "POST"
        token = None if use is Use.LENIENT else pair.access
        body = {"refresh_token": pair.refresh} if use.refreshes else None
        request = self._history.ask(session, pair, use)
        try:
            answer = await self._http.send(method, use.value, body, token=token)
        except ConnectError:
            self._history.unsent(request)
        except _BROKEN:
            if not self._outages:
                self._history.lost(request)
        else:
            self._note(request, answer)
        return request

    def _note(self, request: Request, answer: Response) -> None:
        if answer.status == 200:
            self._history.accepted(request, _pair(answer) if request.use.refreshes else None)
        elif answer.status in (401, 403):
            self._history.refused(request)
        elif not (self._outages and answer.status == _OUTAGE and self._bearable(request, answer)):
            self.surprises.append(str(answer))

    @staticmethod
    def _bearable(request: Request, answer: Response) -> bool:
        """Return whether the response to an outage makes clients try again.

        To a refresh it has to be plain text, because a JSON error would end the client's session.
        """
        plain = answer.media_type == "text/plain"
        return bool(answer.header("Retry-After")) and plain is request.use.refreshes


def _pair(answer: Response) -> Pair:
    return Pair(answer.json["access_token"], answer.json["refresh_token"])
