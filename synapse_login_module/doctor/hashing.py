"""How fast passwords are hashed here, measured."""

from __future__ import annotations

import time
from collections.abc import Sequence

from synapse_login_module.common.concurrency import at_once
from synapse_login_module.common.daemon_thread import in_daemon_thread
from synapse_login_module.config.settings import Hashing
from synapse_login_module.doctor.running import Check
from synapse_login_module.hashes import Kind
from synapse_login_module.hashes.bcrypt import LEAST_COST, new_hashes
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import good, in_milliseconds, in_units, warning
from synapse_login_module.passwords import cores

AREA = "hashing"
_SLOW = 1.0
_TRIAL, _TRIALS = 8, 3
_SAMPLE = 0.5
"""Seconds for which each thread hashes."""

_AFFORDABLE = 2.0
_TRIAL_PASSWORD = "not a password of any account"


def check_hashing(hashing: Hashing, reactor: object) -> Check:
    """Make the check of the hashing speed. It has to run alone, or others slow it down."""
    threads = hashing.threads or cores()

    async def work() -> Sequence[Finding]:
        return [await _measure(hashing, threads, reactor)]

    return Check(AREA, hashing.format, work)


async def _measure(hashing: Hashing, threads: int, reactor: object) -> Finding:
    kind = hashing.new_hashes().kind
    at = f"at rounds {hashing.rounds}" if hashing.format == "bcrypt" else f"as {kind}"
    one = await _estimate(hashing, kind, reactor)
    if one > _AFFORDABLE:
        found = f"one hash takes about {in_units(one)} {at}"
    else:
        number = max(1, int(_SAMPLE / one))
        times = await at_once(
            threads,
            lambda _: in_daemon_thread(reactor, lambda: _times(kind, number)),
            range(threads),
        )
        one = min(map(min, times))
        rate = threads * number / max(map(sum, times))
        found = (
            f"one hash takes {in_milliseconds(one)} {at}: {rate:.1f} logins a second"
            f" on {threads} {'thread' if threads == 1 else 'threads'}"
        )
    if kind.memory:
        found += f", with up to {threads * kind.memory / 2**20:.0f} MiB of memory"
    what = hashing.format
    key = "hashing.rounds" if hashing.format == "bcrypt" else "hashing.argon2"
    if kind.is_weak:
        more = f"{key} to {LEAST_COST} or more" if what == "bcrypt" else f"more in {key}"
        return warning(what, found, f"set {more}: stolen hashes are guessed too fast")
    if one > _SLOW:
        rounds = _affordable(hashing.rounds, one)
        less = f"{key} to {rounds}" if what == "bcrypt" else f"less in {key}"
        return warning(what, found, f"set {less}")
    return good(what, found)


async def _estimate(hashing: Hashing, kind: Kind, reactor: object) -> float:
    """Return about how many seconds one hash takes.

    One of high cost may take seconds, so with bcrypt a cheap one is measured.
    """
    trial = min(hashing.rounds, _TRIAL)
    tried = new_hashes(trial).kind if hashing.format == "bcrypt" else kind
    quick = min(await in_daemon_thread(reactor, lambda: _times(tried, _TRIALS)))
    return quick * kind.seconds / tried.seconds


def _times(kind: Kind, number: int) -> list[float]:
    """Hash some times; return how many seconds each took."""
    times = []
    for _ in range(number):
        began = time.perf_counter()
        kind.decoy(_TRIAL_PASSWORD)
        times.append(time.perf_counter() - began)
    return times


def _affordable(rounds: int, seconds: float) -> int:
    """Return the highest cost of a hash that takes less than a quarter of a second."""
    while seconds > _SLOW / 4 and rounds > LEAST_COST:
        rounds, seconds = rounds - 1, seconds / 2
    return rounds
