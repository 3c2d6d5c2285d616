"""``check-login``: walks through a login, and says what a client would be answered."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import click

from synapse_login_module.commands.backends import Opened, on_synapse, with_server
from synapse_login_module.commands.options import Where, where_option
from synapse_login_module.commands.passwords import ask_password
from synapse_login_module.commands.program import Command, about, argument
from synapse_login_module.commands.report import json_option, print_json
from synapse_login_module.common.console import printable
from synapse_login_module.interfaces import IRateLimits
from synapse_login_module.model import canonical_email
from synapse_login_module.rehearsal.providers import tracing
from synapse_login_module.rehearsal.sessions import StoreSessions
from synapse_login_module.rehearsal.steps import Step, Trace
from synapse_login_module.rehearsal.verdict import Verdict
from synapse_login_module.rehearsal.walk import Rehearsal

_WIDTH = 12


def _is_address(ctx: click.Context, _: click.Parameter, value: str) -> str:
    if value:
        try:
            ip_address(value)
        except ValueError:
            raise click.BadParameter("not an IP address", ctx) from None
    return value


@click.command(
    "check-login",
    cls=Command,
    epilog="At a terminal, the command asks for the password. Otherwise it reads one line from"
    " standard input. No session is made, no attempt is counted, no account is linked or made, and"
    " nothing is written. But a directory or an HTTP service that counts wrong passwords itself"
    " counts this one, too. The exit status is 0 if the login would succeed, else 1. The last line"
    " says what a client would be answered. The keys of --json are step, text, milliseconds and"
    " those of the step; the last object has step, succeeds, user_id, status, errcode, error and"
    " reason.",
)
@where_option
@argument(
    "user",
    "as a client sends it: a user ID, a local part, an e-mail address, or +NUMBER for phones",
)
@click.option("--phone", is_flag=True, help="USER is a telephone number in international form.")
@click.option(
    "--address",
    metavar="IP",
    default="",
    callback=_is_address,
    help="The client's address, whose rate limits count. They can be read where the servers share"
    " them in PostgreSQL.",
)
@json_option
def command(where: Where, user: str, phone: bool, address: str, as_json: bool) -> None:
    """Find out why somebody cannot log in."""
    body = login_body(user, phone, ask_password("Password: "))
    if where.config is None:
        with about(*where.homeserver):
            rehearse = on_synapse(where.homeserver, "rehearsing").rehearse
            steps, verdict = rehearse(where.homeserver, body, address)
    else:
        steps, verdict = with_server(where.config, lambda opened: _walk(opened, body, address))
    _print(steps, verdict, as_json)
    if not verdict.succeeds:
        raise click.exceptions.Exit(1)


def login_body(user: str, phone: bool, password: str) -> Mapping[str, Any]:
    """Return the body that a client would send."""
    identifier = {"type": "m.id.user", "user": user}
    if phone or user.startswith("+"):
        number = user.removeprefix("+")
        identifier = {"type": "m.id.thirdparty", "medium": "msisdn", "address": number}
    elif not user.startswith("@") and canonical_email(user) is not None:
        identifier = {"type": "m.id.thirdparty", "medium": "email", "address": user}
    return {"type": "m.login.password", "identifier": identifier, "password": password}


async def _walk(
    opened: Opened, body: Mapping[str, Any], address: str
) -> tuple[Sequence[Step], Verdict]:
    """Walk through a login at the standalone server."""
    trace = Trace()
    watch = tracing(trace, list(opened.names), time.monotonic)
    rehearsal = Rehearsal(
        opened.server_name,
        opened.loaded.config,
        opened.accounts(watch),
        StoreSessions(opened.store, opened.admission(), trace).begin,
        opened.store if IRateLimits.providedBy(opened.store) else None,
        opened.reactor,
        trace,
    )
    return trace.steps, await rehearsal.walk(body, address)


def _print(steps: Sequence[Step], verdict: Verdict, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "step": step.name,
                    "text": step.text,
                    "milliseconds": step.milliseconds,
                    **step.facts,
                }
                for step in steps
            ]
        )
        print_json([{"step": "result", "succeeds": verdict.succeeds, **verdict._asdict()}])
        return
    for step in steps:
        took = "" if step.milliseconds is None else f" ({step.milliseconds:.0f} ms)"
        _print_line(step.name, f"{step.text}{took}")
    _print_line("result", verdict.sentence())


def _print_line(name: str, text: str) -> None:
    click.echo(f"{name:<{_WIDTH}}{printable(text)}")
