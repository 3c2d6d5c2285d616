"""Builds the sweep, the judge and the brake over linked accounts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime

from synapse_login_module.accounts.brake import Brake, BrakeLimit
from synapse_login_module.accounts.judge import Judge
from synapse_login_module.accounts.questions import Questions
from synapse_login_module.accounts.sweep import AccountSweep, Versions
from synapse_login_module.accounts.watch import Endings, Providers, SweepMeter
from synapse_login_module.config.settings import ProviderPlugin, SharedConfig
from synapse_login_module.interfaces import ILinkWatch, IPasswordProvider, IWatchedAccounts


class Watch(NamedTuple):
    """The parts that watch over linked accounts.

    :param questions: asks the providers.
    :param judge: acts on every answer of a provider.
    :param sweep: looks at all linked accounts while it runs. Of the processes that share the links,
        one sweep is enough.
    :param version_of: returns the version of a provider's accounts, by the provider's name or a
        former one; ``None`` if they have none. See
        :class:`~synapse_login_module.interfaces.IWatchedAccounts`.
    """

    questions: Questions
    judge: Judge
    sweep: AccountSweep
    version_of: Callable[[str], object]


def watch_over(
    links: ILinkWatch,
    config: SharedConfig,
    given: Sequence[IPasswordProvider],
    providers: Providers,
    endings: Endings,
    clock: IReactorTime,
    looked: Callable[[str, str], None],
    meter: SweepMeter,
) -> Watch:
    """Build the watch.

    :param links: the links of the token store or of the homeserver.
    :param config: the keys ``brake``, ``account_check_interval`` and ``password_providers`` count.
    :param given: the providers in the order of ``password_providers``, one for each entry.
    :param providers: the same providers as one.
    :param endings: ends sessions and locks users.
    :param clock: the wall clock, since the links keep times of day.
    :param looked: called with the provider's name and the outcome of each question.
    :param meter: receives the metrics of the sweep.
    """
    interval = config.tokens.account_check_interval / 1000
    brakes = config.brake
    limit = None if brakes is None else BrakeLimit(brakes.accounts, brakes.percent)
    questions = Questions(providers, looked)
    brake = Brake(links, questions, limit, interval, clock)
    judge = Judge(links, brake, endings)
    watched = _watched(config.password_providers, given)
    by_name = {name: provider for names, provider in watched.items() for name in names}

    def versions() -> Versions:
        return {names: provider.version() for names, provider in watched.items()}

    def version_of(name: str) -> object:
        provider = by_name.get(name)
        if provider is None:
            return None
        try:
            return provider.version()
        except Exception:  # the sweep, which asks once a second, logs it
            return None

    sweep = AccountSweep(links, questions, judge, brake, interval, clock, versions, meter)
    return Watch(questions, judge, sweep, version_of)


def _watched(
    plugins: Sequence[ProviderPlugin], given: Sequence[IPasswordProvider]
) -> dict[tuple[str, ...], IWatchedAccounts]:
    """Return the providers whose accounts have a version, by all names of each."""
    return {
        plugin.names(provider.name): IWatchedAccounts(provider)
        for plugin, provider in zip(plugins, given, strict=True)
        if IWatchedAccounts.providedBy(provider)
    }
