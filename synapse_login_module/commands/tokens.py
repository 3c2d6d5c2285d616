"""``create-login-token``."""

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
    epilog="Prints the token, good for m.login.token for tokens.login_token_lifetime.",
)
@config_option()
@argument("user", "a user ID, its local part, or an e-mail address")
def create(config: Path, user: str) -> None:
    """Make a single-use login token for a user."""

    async def work(opened: Opened) -> str:
        found = await find_users(opened, user)
        # Who never logged in is known to a provider alone, by the name of the first login.
        user_id = the_one(user, found, opened.server_name) or fold(
            user_id_of(user, opened.server_name)
        )
        return (await make_login_token(opened.accounts(), opened.store, user_id)).token

    click.echo(with_store(config, work))
