"""``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from synapse_login_module.commands.options import config_option, homeserver_option
from synapse_login_module.commands.program import Command, about
from synapse_login_module.commands.report import json_option, print_json, print_table
from synapse_login_module.common.console import run_in_reactor
from synapse_login_module.doctor import inside_synapse, standalone
from synapse_login_module.doctor.configuration import read_given
from synapse_login_module.model import Finding, Level
from synapse_login_module.model.findings import has_failure
from synapse_login_module.standalone.plan import is_homeserver_config

_SECONDS = 20.0


@click.command(
    "doctor",
    cls=Command,
    short_help="Try all that the service needs, and say what to do.",
    epilog="It examines the configuration, files and keys, the store, each password provider, the"
    " hashing speed, the system's limits and clock, the homeserver and the reverse proxy. It"
    " changes nothing: no session is made and no attempt counted. Run it as the user of the server."
    " The exit status is 1 if anything failed, and else 0, also with warnings.",
)
@config_option(
    required=False,
    help_text="The standalone server's configuration file; or Synapse's, if it is in one file.",
)
@homeserver_option(required=False)
@click.option(
    "--timeout",
    type=click.FloatRange(1, 600),
    default=_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="The deadline of each check. Checks run side by side.",
)
@json_option
def command(
    config: Path | None, homeserver_config: tuple[str, ...], timeout: float, as_json: bool
) -> None:
    """Try all that the service needs, for real, and print what was found and what to do."""
    if (config is None) != bool(homeserver_config):
        raise click.UsageError("Give one of --config and --homeserver-config.")
    findings = _examine(config, homeserver_config, timeout)
    if as_json:
        print_json([_as_json(each) for each in findings])
    else:
        _print(findings)
    if has_failure(findings):
        raise click.exceptions.Exit(1)


def _examine(
    config: Path | None, homeserver_config: tuple[str, ...], timeout: float
) -> list[Finding]:
    if config is not None:
        with about(config):
            document, given = read_given(config)
        if not is_homeserver_config(given):

            async def run(reactor: Any) -> list[Finding]:
                return await standalone.diagnose(document, given, config, reactor, timeout)

            return run_in_reactor(run)
        homeserver_config = (str(config),)
    return run_in_reactor(
        lambda reactor: inside_synapse.diagnose(homeserver_config, reactor, timeout)
    )


def _print(findings: list[Finding]) -> None:
    # What to do follows what was found, so that the line is no longer than it has to be.
    rows = [
        (
            each.level.value,
            each.area,
            each.what,
            f"{each.found} -> {each.advice}" if each.advice else each.found,
        )
        for each in findings
    ]
    print_table(("level", "area", "looked at", "found -> what to do"), rows)
    counts = [(level, sum(each.level is level for each in findings)) for level in Level]
    click.echo(", ".join(f"{count} {level.value}" for level, count in counts))


def _as_json(finding: Finding) -> dict[str, str]:
    return {
        "level": finding.level.value,
        "area": finding.area,
        "looked_at": finding.what,
        "found": finding.found,
        "advice": finding.advice,
    }
