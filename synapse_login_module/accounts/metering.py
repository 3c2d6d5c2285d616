"""The metrics of the sweep and of the sessions that it ends."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from synapse_login_module.accounts.watch import Endings, EndReason, SweepMeter
from synapse_login_module.metrics.recording import Metrics


def sweep_meters(metrics: Metrics) -> tuple[Callable[[str, str], None], SweepMeter]:
    """Make what counts the questions of the sweep, and what receives its metrics.

    They are the last two arguments of :func:`~synapse_login_module.accounts.assembly.watch_over`.
    """
    looks, links = metrics.sweep_looks, metrics.linked_accounts
    meter = SweepMeter(
        lag=metrics.sweep_lag.set,
        held=metrics.brake_held.set,
        links=lambda provider, number: links.of(provider).set(number),
    )
    return lambda provider, outcome: looks.of(provider, outcome).inc(), meter


class CountedEndings:
    """Counts the sessions that end; see :class:`~synapse_login_module.accounts.watch.Endings`.

    :param endings: ends them.
    """

    def __init__(self, endings: Endings, metrics: Metrics) -> None:
        self._endings = endings
        self._ended = metrics.sessions_ended

    def end(self, user_id: str, reason: EndReason) -> Deferred[int]:
        """End all sessions of a user; fires with their number."""

        def count(number: int) -> int:
            self._ended.of(reason.value).inc(number)
            return number

        return self._endings.end(user_id, reason).addCallback(count)

    def lock(self, user_id: str, locked: bool) -> Deferred[None]:
        """Tell the homeserver whether a user is locked."""
        return self._endings.lock(user_id, locked)
