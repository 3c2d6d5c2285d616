"""``create-login-token``: makes a login token for a user."""

from __future__ import annotations

from pathlib import Path

import click

from synapse_login_module.accounts.login_tokens import make_login_token
from synapse_login_module.accounts.names import the_one, user_id_of
from synapse_login_module.commands.backends import Opened, with_store
from synapse_login_module.commands.options import config_option
from synapse_login_module.commands.program import Command, argument
from synapse_login_module.commands.users import find_users
from synapse_login_module.model import fold


@click.command(
    "create-login-token",
    cls=Command,
    examples=("create-login-token -c config.yaml alice",),
    epilog="Prints the token. A client can log in with it once, with m.login.token, within"
    " tokens.login_token_lifetime.",
)
@config_option()
@argument("user", "a user ID, its local part, or an e-mail address")
def create(config: Path, user: str) -> None:
    """Make a single-use login token for a user."""

    async def work(opened: Opened) -> str:
        found = await find_users(opened, user)
        # A user who has never logged in has no link yet, and may exist at a provider by that name.
        user_id = the_one(user, found, opened.server_name) or fold(
            user_id_of(user, opened.server_name)
        )
        return (await make_login_token(opened.accounts(), opened.store, user_id)).token

    click.echo(with_store(config, work, read_only=False))
