"""Builds what counts and measures in the standalone server, and what shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from twisted.application.service import IService
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from synapse_login_module import __version__
from synapse_login_module.config.settings import Config
from synapse_login_module.metrics.page import CONTENT_TYPE, Page, page_of, page_of_workers
from synapse_login_module.metrics.prometheus import (
    is_installed,
    metrics_in,
    metrics_of_worker,
    own_registry,
)
from synapse_login_module.metrics.recording import Metrics
from synapse_login_module.standalone.scrape import Sampling, Scrape
from synapse_login_module.tokens.format import KeyRing
from synapse_login_module.web.metrics import MetricsHandler, NoPage

_log = Logger()


class WorkerFiles(NamedTuple):
    """Where a worker keeps its metrics.

    :param folder: the folder of all workers.
    :param slot: the name of this worker's files.
    """

    folder: Path
    slot: str


class Measuring(NamedTuple):
    """What counts and measures.

    :param metrics: the metrics of this process.
    :param page: makes the page; if there is none, the reason. Then nothing is counted either.
    :param services: to be started with the server.
    """

    metrics: Metrics
    page: Page | NoPage
    services: tuple[IService, ...] = ()

    def handler(
        self, store: Any, keys: KeyRing, is_delegated: bool, reactor: Any
    ) -> MetricsHandler:
        """Build the handler of ``/metrics``.

        :param store: the token store.
        :param keys: the token keys.
        :param is_delegated: whether a homeserver delegates to this server.
        """
        if isinstance(self.page, NoPage):
            return MetricsHandler(self.page, CONTENT_TYPE)

        def in_thread(make: Callable[[], bytes]) -> Any:
            return deferToThreadPool(reactor, reactor.getThreadPool(), make)

        scrape = Scrape(
            self.metrics, self.page, in_thread, store, keys, is_delegated, reactor, time.time
        )
        return MetricsHandler(scrape.page, CONTENT_TYPE)


def nothing_measured(reason: NoPage = NoPage.NO_LISTENER) -> Measuring:
    """Build what neither counts nor measures."""
    return Measuring(Metrics(), reason)


def measuring_alone(config: Config) -> Measuring:
    """Build what a server of one process needs by its configuration."""
    if (reason := _obstacle(config)) is not None:
        return nothing_measured(reason)
    registry = own_registry()
    metrics = metrics_in(registry)
    metrics.tell_build(__version__)
    return Measuring(metrics, page_of(registry))


def measuring_of_worker(config: Config, reactor: Any, files: WorkerFiles | None) -> Measuring:
    """Build what a worker needs by its configuration.

    :param files: ``None`` when the parent had no room for them, and logged that.
    """
    if (reason := _obstacle(config)) is not None:
        return nothing_measured(reason)
    if files is None:
        return nothing_measured(NoPage.NO_ROOM)
    try:
        metrics = metrics_of_worker(files.slot)
    except OSError as error:  # the folder was removed meanwhile
        _log.warn("this worker keeps no metrics: {error}", error=error)
        return nothing_measured(NoPage.NO_ROOM)
    metrics.tell_build(__version__)
    return Measuring(metrics, page_of_workers(files.folder), (Sampling(metrics, reactor),))


def _obstacle(config: Config) -> NoPage | None:
    """Return why a server of this configuration has no metrics, if that is so."""
    if not config.internal_listen:
        return NoPage.NO_LISTENER
    return None if is_installed() else NoPage.NOT_INSTALLED
