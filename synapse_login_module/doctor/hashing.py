"""How fast passwords are hashed here, measured."""

from __future__ import annotations

import time
from collections.abc import Sequence

from synapse_login_module.common.concurrency import at_once
from synapse_login_module.common.daemon_thread import in_daemon_thread
from synapse_login_module.config.settings import Hashing
from synapse_login_module.doctor.running import Check
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import good, in_milliseconds, warning
from synapse_login_module.passwords import LEAST_COST, cores, hash_password

AREA = "hashing"
_SLOW = 1.0
_TRIAL = 8
_AFFORDABLE = 2.0
_TRIAL_PASSWORD = "not a password of anybody"


def check_hashing(hashing: Hashing, reactor: object) -> Check:
    """Make the check of the hashing speed. It has to run alone, or others slow it down."""
    threads = hashing.threads or cores()

    async def work() -> Sequence[Finding]:
        return await _measure(hashing.rounds, threads, reactor)

    return Check(AREA, "bcrypt", work)


async def _measure(rounds: int, threads: int, reactor: object) -> list[Finding]:
    # A hash of a cost that was mistyped may take hours, so a cheap one is measured first.
    trial = min(rounds, _TRIAL)
    (quick,) = await at_once(1, lambda _: in_daemon_thread(reactor, lambda: _time(trial)), [0])
    one = quick * 2 ** (rounds - trial)
    about, rate = "about ", threads / one
    if one <= _AFFORDABLE:
        began = time.perf_counter()
        times = await at_once(
            threads,
            lambda _: in_daemon_thread(reactor, lambda: _time(rounds)),
            range(threads),
        )
        about, one, rate = "", min(times), threads / (time.perf_counter() - began)
    takes = in_milliseconds(one) if one < _SLOW else f"{one:.1f} seconds"
    found = (
        f"one hash takes {about}{takes} at rounds {rounds}: {about}{rate:.1f} logins a second on"
        f" {threads} threads"
    )
    if rounds < LEAST_COST:
        advice = f"set hashing.rounds to {LEAST_COST} or more: stolen hashes are guessed too fast"
        return [warning("bcrypt", found, advice)]
    if one > _SLOW:
        return [warning("bcrypt", found, f"set hashing.rounds to {_affordable(rounds, one)}")]
    return [good("bcrypt", found)]


def _time(rounds: int) -> float:
    began = time.perf_counter()
    hash_password(_TRIAL_PASSWORD, "", rounds)
    return time.perf_counter() - began


def _affordable(rounds: int, seconds: float) -> int:
    """Return the highest cost of a hash that takes less than a quarter of a second."""
    while seconds > _SLOW / 4 and rounds > LEAST_COST:
        rounds, seconds = rounds - 1, seconds / 2
    return rounds
