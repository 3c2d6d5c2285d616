"""``create-login-token``."""

from __future__ import annotations

from pathlib import Path

import click

from synapse_login_module.commands.backends import Opened, with_store
from synapse_login_module.commands.options import config_option
from synapse_login_module.commands.program import Command, argument
from synapse_login_module.errors import ConfigError


@click.command(
    "create-login-token",
    cls=Command,
    epilog="Prints the token, good for m.login.token for tokens.login_token_lifetime.",
)
@config_option()
@argument("user", "a user ID, or its local part")
def create(config: Path, user: str) -> None:
    """Make a single-use login token for a user."""

    async def work(opened: Opened) -> str:
        user_id = opened.user_id(user)
        if await opened.accounts.account_status(user_id, None) is None:
            raise ConfigError("", f"no password provider knows {user_id}")
        return (await opened.store.make_login_token(user_id)).token

    click.echo(with_store(config, work))
