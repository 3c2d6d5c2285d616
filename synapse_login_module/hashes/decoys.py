"""Which kind of hash a decoy stands for."""

from __future__ import annotations

from synapse_login_module.hashes.kinds import QUICK, Kind

_MOST_KINDS = 1000


class Times:
    """The shortest time that a check of each kind took here. Used from several threads.

    A longer time says more about other load on the machine than about the kind.
    """

    def __init__(self) -> None:
        self._shortest: dict[Kind, float] = {}

    def took(self, kind: Kind, seconds: float) -> None:
        """Note how long a check or a decoy of a kind took."""
        before = self._shortest.get(kind)
        if before is None and len(self._shortest) >= _MOST_KINDS:
            self._shortest.clear()
        if before is None or seconds < before:
            self._shortest[kind] = seconds

    def slowest(self, kinds: set[Kind]) -> Kind:
        """Return the slowest of some kinds.

        Where a time is missing, the estimates are compared, of all of them.
        """
        shortest = dict(self._shortest)  # other threads change it
        measured = shortest if kinds <= shortest.keys() else None
        return max(
            sorted(kinds, key=str),
            key=_estimate if measured is None else measured.__getitem__,
        )


def _estimate(kind: Kind) -> float:
    return kind.seconds + (QUICK if kind.is_quick else 0.0)


class Decoys:
    """The kind of decoys: of the latest reports of all sources, the slowest.

    :param kind: the kind until there is a report.
    """

    def __init__(self, kind: Kind, times: Times) -> None:
        self._kind = kind
        self._times = times
        self._reports: dict[object, Kind] = {}

    def report(self, kind: Kind, source: object) -> None:
        """Replace the report of a source."""
        self._reports[source] = kind

    @property
    def kind(self) -> Kind:
        """The kind of the next decoy."""
        kinds = set(self._reports.values()) or {self._kind}
        return next(iter(kinds)) if len(kinds) == 1 else self._times.slowest(kinds)
