"""The watch over linked accounts, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime

from synapse_login_module.accounts.brake import Brake, BrakeLimit
from synapse_login_module.accounts.judge import Judge
from synapse_login_module.accounts.questions import Questions
from synapse_login_module.accounts.sweep import AccountSweep, Versions
from synapse_login_module.accounts.watch import Endings, Providers, SweepMeter
from synapse_login_module.config.settings import ProviderPlugin, SharedConfig
from synapse_login_module.interfaces import IPasswordProvider, IWatchedAccounts
from synapse_login_module.linkwatch import ILinkWatch


class Watch(NamedTuple):
    """What watches over linked accounts.

    :param judge: what every answer of a provider has to go through.
    :param sweep: looks at all accounts, while it runs; one of those who share the links is enough.
    """

    questions: Questions
    judge: Judge
    sweep: AccountSweep


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
    """Put the watch together.

    :param given: the providers as the configuration names them, one for each of its entries.
    :param providers: the same as one.
    :param clock: the wall clock, by which the links keep moments.
    :param looked: called with the provider and the outcome of a question.
    """
    interval = config.tokens.account_check_interval / 1000
    brakes = config.brake
    limit = None if brakes is None else BrakeLimit(brakes.accounts, brakes.percent)
    questions = Questions(providers, looked)
    brake = Brake(links, questions, limit, interval, clock)
    judge = Judge(links, brake, endings)
    versions = _versions(config.password_providers, given)
    sweep = AccountSweep(links, questions, judge, brake, interval, clock, versions, meter)
    return Watch(questions, judge, sweep)


def _versions(
    plugins: Sequence[ProviderPlugin], given: Sequence[IPasswordProvider]
) -> Callable[[], Versions]:
    """What says whether the accounts of those providers may have changed that can tell."""
    watched: dict[tuple[str, ...], Any] = {
        (plugin.name or provider.name, *plugin.former_names): provider
        for plugin, provider in zip(plugins, given, strict=True)
        if IWatchedAccounts.providedBy(provider)
    }
    return lambda: {names: provider.version() for names, provider in watched.items()}
