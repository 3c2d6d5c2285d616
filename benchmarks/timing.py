"""``python -m benchmarks.timing``: does the time of a rejected login reveal the reason?

The logins run one after the other over one connection, in turn, so that other load on the machine
affects all kinds alike. The medians are compared. On a busy machine they are
too noisy; then look at the server's processor time, which other load hardly changes.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.util import find_spec
from math import sqrt
from pathlib import Path
from statistics import median, quantiles

from benchmarks import hash_timing, refusals
from benchmarks.backends import BACKENDS
from benchmarks.refusals import ALLOWED, MILLISECONDS_TO_BACKEND, Taken
from benchmarks.rounds import Rounds
from benchmarks.servers import USER

_ERROR = 0.93
"""The standard error of a median, as a multiple of the interquartile range over the root of n."""
_WAITED = "the client waits"

Times = dict[str, list[float]]
"""The milliseconds of each login, by its kind."""


def main() -> None:
    """Parse the command line, measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="logins of each kind (200)")
    parser.add_argument("--cost", type=int, default=12, help="the cost of the bcrypt hashes (12)")
    parser.add_argument(
        "--of",
        choices=("standalone", "hashes", "synapse", *BACKENDS),
        nargs="+",
        default=("standalone", *(("synapse",) if find_spec("synapse") else ())),
        help="the standalone server, the same with each format of hashes, the module in Synapse, or"
        " the server with accounts in a directory, a database or a service (the first and the"
        " module, if Synapse is there)",
    )
    parser.add_argument(
        "--delay",
        type=float,
        default=MILLISECONDS_TO_BACKEND,
        help="milliseconds of each way to a directory or a service (10)",
    )
    options = parser.parse_args()
    print(f"logins of each kind: {options.rounds}, bcrypt's cost: {options.cost}")
    results = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        if "standalone" in options.of:
            made = refusals.of_standalone(Path(folder), options.rounds, options.cost)
            results += [_report(what, times) for what, times in _times(made).items()]
        if "hashes" in options.of:
            results += hash_timing.measure(Path(folder), _taking(options.rounds), ALLOWED)
        if "synapse" in options.of:
            for name, made in refusals.of_synapse(Path(folder), options.rounds, options.cost):
                for what, times in _times(made).items():
                    results.append(_report(f"{name}: {what}", times))
        for backend in BACKENDS:
            if backend in options.of:
                results += _elsewhere(Path(folder), backend, options.rounds, options.delay)
    raise SystemExit(0 if all(results) else 1)


def _elsewhere(folder: Path, backend: str, rounds: int, delay: float) -> list[bool]:
    """Measure the server with accounts in a backend. Only the time at the client counts.

    Little processor time is used: it shows where a difference comes from, but not whether a client
    could see it.

    :param delay: the milliseconds of each way to the backend.
    """
    print(f"each way to the backend takes {delay:g} ms")
    results = []
    for name, made in refusals.of_backend(folder, backend, rounds, delay):
        for what, times in _times(made).items():
            told = _report(f"{name}: {what}", times, judged=what == _WAITED)
            if what == _WAITED:
                results.append(told)
    return results


def _taking(rounds: int) -> hash_timing.Take:
    """Return a function that measures wrong passwords and an unknown user."""
    bodies = {
        refusals.WRONG: refusals.password_login(USER),
        refusals.UNKNOWN: refusals.password_login("nobody"),
    }
    return lambda connection, pid: _times(refusals.measure(connection, bodies, rounds, pid))


def _times(made: Rounds[Taken]) -> dict[str, Times]:
    """Return the milliseconds by the kind of time, and the kind of login."""
    waited = {kind: [each.waited for each in taken] for kind, taken in made.made.items()}
    worked = {kind: [each.worked for each in taken] for kind, taken in made.made.items()}
    known = {"the processor works": worked} if all(worked[refusals.WRONG]) else {}
    return {_WAITED: waited, **known}


def _report(what: str, times: Times, judged: bool = True) -> bool:
    """Print a table and a verdict; return whether no kind differs from another.

    :param judged: whether to give a verdict.
    """
    medians = {kind: median(each) for kind, each in times.items()}
    usual = median(medians.values())
    print(f"\n{what:30}{'median':>12}{'to the usual':>16}{'known to':>12}{'middle half':>24}")
    doubts = []
    for kind, each in times.items():
        low, _, high = quantiles(each, n=4)
        doubts.append(_ERROR * (high - low) / sqrt(len(each)) / usual)
        print(
            f"{kind:30}{medians[kind]:9.1f} ms{medians[kind] / usual - 1:+16.2%}"
            f"{'±':>6}{doubts[-1]:6.2%}{low:14.1f} to {high:.1f} ms"
        )
    cheapest, dearest = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
    spread = medians[dearest] / medians[cheapest] - 1
    verdict = "reached" if spread <= ALLOWED else "MISSED"
    noisy = max(doubts) > ALLOWED / 4
    if not judged:
        return True
    print(
        f"the dearest ({dearest}) over the cheapest ({cheapest}): {spread:.2%},"
        f" allowed {ALLOWED:.0%}: {verdict}{', but too noisy to tell' if noisy else ''}"
    )
    return spread <= ALLOWED


if __name__ == "__main__":
    main()
