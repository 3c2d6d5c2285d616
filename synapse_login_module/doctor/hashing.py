"""How fast passwords are hashed here, measured."""

from __future__ import annotations

import time
from collections.abc import Sequence

from synapse_login_module.common.concurrency import at_once
from synapse_login_module.common.daemon_thread import in_daemon_thread
from synapse_login_module.config.settings import Hashing
from synapse_login_module.doctor.running import Check
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import good, in_milliseconds, in_units, warning
from synapse_login_module.passwords import LEAST_COST, cores, hash_password

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
        return await _measure(hashing.rounds, threads, reactor)

    return Check(AREA, "bcrypt", work)


async def _measure(rounds: int, threads: int, reactor: object) -> list[Finding]:
    # A hash of a cost that was mistyped may take hours, so a cheap one is measured first.
    trial = min(rounds, _TRIAL)
    quick = min(await in_daemon_thread(reactor, lambda: _times(trial, _TRIALS)))
    one = quick * 2 ** (rounds - trial)
    if one > _AFFORDABLE:
        found = f"one hash takes about {in_units(one)} at rounds {rounds}"
    else:
        number = max(1, int(_SAMPLE / one))
        times = await at_once(
            threads,
            lambda _: in_daemon_thread(reactor, lambda: _times(rounds, number)),
            range(threads),
        )
        one = min(map(min, times))
        rate = threads * number / max(map(sum, times))
        found = (
            f"one hash takes {in_milliseconds(one)} at rounds {rounds}: {rate:.1f} logins a second"
            f" on {threads} {'thread' if threads == 1 else 'threads'}"
        )
    if rounds < LEAST_COST:
        advice = f"set hashing.rounds to {LEAST_COST} or more: stolen hashes are guessed too fast"
        return [warning("bcrypt", found, advice)]
    if one > _SLOW:
        return [warning("bcrypt", found, f"set hashing.rounds to {_affordable(rounds, one)}")]
    return [good("bcrypt", found)]


def _times(rounds: int, number: int) -> list[float]:
    """Hash some times; return how many seconds each took."""
    times = []
    for _ in range(number):
        began = time.perf_counter()
        hash_password(_TRIAL_PASSWORD, "", rounds)
        times.append(time.perf_counter() - began)
    return times


def _affordable(rounds: int, seconds: float) -> int:
    """Return the highest cost of a hash that takes less than a quarter of a second."""
    while seconds > _SLOW / 4 and rounds > LEAST_COST:
        rounds, seconds = rounds - 1, seconds / 2
    return rounds
