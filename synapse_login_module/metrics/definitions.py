"""Every metric: its name on the page, its kind, its help and its labels.

``docs/metrics.rst`` has them in a table, which a test compares with this module. The names follow
Prometheus' conventions (https://prometheus.io/docs/practices/naming/): base units, and ``_total``
for counters.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Kind(enum.Enum):
    """The kind of a metric, by the word in Prometheus' text format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Place(enum.Enum):
    """Where a metric is."""

    EVERYWHERE = "everywhere"
    """Inside Synapse and standalone."""
    STANDALONE = "standalone"
    """In the standalone server alone, since Synapse has the store and the connections."""
    AT_SCRAPE = "at scrape"
    """Standalone, and read from the store when the page is made: one value for all servers."""


class Definition(NamedTuple):
    """A metric.

    :param name: its name on the page; of a histogram, without the suffixes.
    :param help: a sentence without a full stop.
    :param labels: the names of its labels.
    :param buckets: the upper bounds of a histogram's buckets.
    :param first: the values of labels that are on the page from the start, at 0. Prometheus takes
        no increase from a series whose first value is 1.
    :param multiprocess_mode: how the gauges of several workers make one, in the words of
        ``prometheus_client``: ``livesum``, ``livemax`` or ``livemostrecent``.
    :param is_frequent: whether it is a counter that each request adds to, on the reactor's thread.
        See :class:`~synapse_login_module.metrics.recording.Gathered`.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    place: Place = Place.EVERYWHERE
    buckets: tuple[float, ...] = ()
    first: tuple[tuple[str, ...], ...] = ()
    multiprocess_mode: str = "livesum"
    is_frequent: bool = False


_ANSWERS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COMMITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_BATCHES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

OUTCOMES = Definition(
    "synapse_login_outcomes_total",
    Kind.COUNTER,
    "Outcomes of logins, refreshes and logouts",
    ("event", "outcome", "reason"),
    first=(
        ("login", "ok", "password"),
        ("login", "refused", "wrong_password"),
        ("login", "unavailable", "provider"),
        ("login", "unavailable", "store"),
        ("refresh", "ok", "strict"),
        ("refresh", "ok", "lenient"),
        ("refresh", "refused", "reused_token"),
        ("refresh", "unavailable", "store"),
    ),
    is_frequent=True,
)
LIMITS_HIT = Definition(
    "synapse_login_limits_hit_total",
    Kind.COUNTER,
    "Attempts, requests and connections that a limit rejected",
    ("limit",),
    first=(("hashing_queue",), ("requests",), ("connections",), ("address",), ("failures",)),
)
PROVIDER_OUTCOMES = Definition(
    "synapse_login_provider_outcomes_total",
    Kind.COUNTER,
    "Outcomes of questions to password providers",
    ("provider", "operation", "outcome"),
    is_frequent=True,
)
PROVIDER_DURATION = Definition(
    "synapse_login_provider_duration_seconds",
    Kind.HISTOGRAM,
    "How long password providers let wait for an answer, waits for hashing included",
    ("provider", "operation"),
    buckets=_ANSWERS,
)
CIRCUIT_OPEN = Definition(
    "synapse_login_provider_circuit_open",
    Kind.GAUGE,
    "State of a password provider's circuit breaker: 0 closed, 0.5 half-open, 1 open",
    ("provider", "operation"),
    multiprocess_mode="livemax",
)
HASHING_QUEUE = Definition(
    "synapse_login_hashing_queue_length",
    Kind.GAUGE,
    "Passwords that wait to be hashed",
)
HASHING_WAIT = Definition(
    "synapse_login_hashing_wait_seconds",
    Kind.HISTOGRAM,
    "How long passwords waited to be hashed",
    buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
SWEEP_LOOKS = Definition(
    "synapse_login_sweep_looks_total",
    Kind.COUNTER,
    "Answers of providers about linked accounts that were looked at in the background",
    ("provider", "outcome"),
)
SWEEP_LAG = Definition(
    "synapse_login_sweep_lag_seconds",
    Kind.GAUGE,
    "Seconds by which the oldest look at a linked account is overdue",
    multiprocess_mode="livemostrecent",
)
LINKED_ACCOUNTS = Definition(
    "synapse_login_linked_accounts",
    Kind.GAUGE,
    "Linked accounts that are not gone",
    ("provider",),
    multiprocess_mode="livemostrecent",
)
BRAKE_HELD = Definition(
    "synapse_login_brake_held_accounts",
    Kind.GAUGE,
    "Accounts that are gone and whose sessions the brake keeps",
    multiprocess_mode="livemostrecent",
)
SESSIONS_ENDED = Definition(
    "synapse_login_sessions_ended_total",
    Kind.COUNTER,
    "Sessions that this service ended because of their account; inside Synapse, access tokens"
    " that it ended for any reason",
    ("reason",),
    first=(("gone",), ("deactivated",)),
)
BUILD = Definition(
    "synapse_login_build_info",
    Kind.GAUGE,
    "The version of this service, of Python and of Twisted; always 1",
    ("version", "python", "twisted"),
    multiprocess_mode="livemax",
)
COMMIT_DURATION = Definition(
    "synapse_login_store_commit_duration_seconds",
    Kind.HISTOGRAM,
    "How long the token store took for a transaction that writes",
    place=Place.STANDALONE,
    buckets=_COMMITS,
)
COMMIT_SIZE = Definition(
    "synapse_login_store_commit_operations",
    Kind.HISTOGRAM,
    "How many pieces of work shared a transaction that writes",
    place=Place.STANDALONE,
    buckets=_BATCHES,
)
COMMIT_FAILURES = Definition(
    "synapse_login_store_failures_total",
    Kind.COUNTER,
    "Transactions and connections of the token store that failed",
    place=Place.STANDALONE,
)
CONNECTIONS = Definition(
    "synapse_login_connections",
    Kind.GAUGE,
    "Open connections of clients (public) and of other servers (internal)",
    ("site",),
    Place.STANDALONE,
)
IN_FLIGHT = Definition(
    "synapse_login_requests_in_flight",
    Kind.GAUGE,
    "Requests that are being answered",
    ("site",),
    Place.STANDALONE,
)
RESPONSES = Definition(
    "synapse_login_responses_total",
    Kind.COUNTER,
    "Responses, by HTTP status",
    ("site", "code"),
    Place.STANDALONE,
    first=tuple(
        (site, code)
        for site in ("public", "internal")
        for code in ("200", "401", "403", "429", "500", "503")
    ),
    is_frequent=True,
)
PRUNED = Definition(
    "synapse_login_pruned_rows_total",
    Kind.COUNTER,
    "Rows that were removed from the token store because they were over",
    ("kind",),
    Place.STANDALONE,
    first=(("session",), ("login_token",), ("imported_token",)),
)
HOMESERVER_CALLS = Definition(
    "synapse_login_homeserver_call_duration_seconds",
    Kind.HISTOGRAM,
    "How long the homeserver took to answer a call",
    ("method", "outcome"),
    Place.STANDALONE,
    buckets=_ANSWERS,
)
STORE_UP = Definition(
    "synapse_login_store_up",
    Kind.GAUGE,
    "Whether the token store answered and could be written when the page was made",
    place=Place.AT_SCRAPE,
)
OUTBOX_NOTES = Definition(
    "synapse_login_outbox_notes",
    Kind.GAUGE,
    "Devices that are due to be deleted at the homeserver",
    place=Place.AT_SCRAPE,
)
OUTBOX_AGE = Definition(
    "synapse_login_outbox_oldest_age_seconds",
    Kind.GAUGE,
    "For how long the oldest of these devices is due; 0 without any",
    place=Place.AT_SCRAPE,
)
KEYS = Definition(
    "synapse_login_token_key_info",
    Kind.GAUGE,
    "The token keys of this server and of the store, by fingerprint; always 1",
    ("key_id", "fingerprint", "state", "signs"),
    Place.AT_SCRAPE,
)

ALL: tuple[Definition, ...] = (
    OUTCOMES,
    LIMITS_HIT,
    PROVIDER_OUTCOMES,
    PROVIDER_DURATION,
    CIRCUIT_OPEN,
    HASHING_QUEUE,
    HASHING_WAIT,
    SWEEP_LOOKS,
    SWEEP_LAG,
    LINKED_ACCOUNTS,
    BRAKE_HELD,
    SESSIONS_ENDED,
    BUILD,
    COMMIT_DURATION,
    COMMIT_SIZE,
    COMMIT_FAILURES,
    CONNECTIONS,
    IN_FLIGHT,
    RESPONSES,
    PRUNED,
    HOMESERVER_CALLS,
    STORE_UP,
    OUTBOX_NOTES,
    OUTBOX_AGE,
    KEYS,
)
"""All of them, in the order of the table in ``docs/metrics.rst``."""
