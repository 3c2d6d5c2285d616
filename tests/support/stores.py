"""Starts token stores for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from synapse_login_module.plugin import Environment
from synapse_login_module.stores import PostgreSQLTokenStore
from tests.support.postgresql import shared_postgresql
from tests.support.waiting import reactor


def start_in_postgresql(
    case: TestCase, environment: Environment, dsn: str | None = None, **config: Any
) -> PostgreSQLTokenStore:
    """Start a store, which is stopped after the test.

    :param dsn: names its database; by default a new one.
    :param config: further keys of its configuration.
    """
    dsn = dsn or shared_postgresql().new_database("store")
    parsed = PostgreSQLTokenStore.parse_config({"dsn": dsn, **config}, Path())
    store = PostgreSQLTokenStore(parsed, replace(environment, reactor=reactor))
    store.startService()
    case.addCleanup(store.stopService)
    return store
