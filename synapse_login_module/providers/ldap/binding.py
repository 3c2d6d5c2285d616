"""Binds with the passwords of users, real and unknown, in the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from synapse_login_module.errors import InvalidCredentials, ProviderUnavailable
from synapse_login_module.model import AccountStatus
from synapse_login_module.providers.identifiers import Named
from synapse_login_module.providers.ldap.bind_answers import BindAnswer, answer_of
from synapse_login_module.providers.ldap.bind_times import BindTimes
from synapse_login_module.providers.ldap.directory import Directory
from synapse_login_module.providers.ldap.messages import Entry, Result, can_be_sent
from synapse_login_module.providers.ldap.result_codes import Bind, meaning_of_bind


class UserBinds:
    """Binds with users' passwords.

    :param directory: the directory to bind at.
    :param unknown_dn: a name that no entry has, for binds in the place of those of an account.
    :param server_name: the homeserver's name.
    :param reactor: measures the time and waits.
    :param random: returns a given number of random bytes.
    :ivar times: how long wrong passwords took.
    """

    log = Logger()

    def __init__(
        self,
        directory: Directory,
        unknown_dn: str,
        server_name: str,
        reactor: Any,
        random: Callable[[int], bytes],
    ) -> None:
        self._directory = directory
        self._unknown_dn = unknown_dn
        self._server_name = server_name
        self.times = BindTimes(reactor, random)

    async def as_entry(self, entry: Entry, who: Named, password: str) -> AccountStatus:
        """Bind as an entry that was found: by its own name, since another could mean another entry.

        :return: what the directory says about the account, whose password is right.
        :raise InvalidCredentials: when the password is wrong, or was not looked at.
        :raise ProviderUnavailable: when the directory did not decide.
        """
        if not can_be_sent(password):
            raise InvalidCredentials(user_id=who.user_id)
        began = self.times.now()
        result = await self._directory.bind(entry.dn, password)
        answer = self._read(result, who.spelled(self._server_name))
        if answer.status is not None:
            return answer.status
        if answer.was_checked:
            self.times.saw(began)
        else:
            await self.times.wait(began)
        raise InvalidCredentials(user_id=who.user_id, detail=answer.why)

    async def as_unknown(self, password: str) -> None:
        """Bind as an entry that does not exist, and take as long as for one that does."""
        if can_be_sent(password):
            began = self.times.now()
            result = await self._directory.bind(self._unknown_dn, password)
            self._read(result, "an unknown user")
            await self.times.wait(began)

    def _read(self, result: Result, account: str) -> BindAnswer:
        """Read the result of a bind, and log what is more than a right or a wrong password.

        :param account: the name of the account, for the log.
        :raise ProviderUnavailable: when the directory did not decide.
        """
        if meaning_of_bind(result.code) not in (Bind.ACCEPTED, Bind.REFUSED):
            self.log.error(
                "LDAP: the bind of {account} is answered with {result}",
                account=account,
                result=result,
            )
            raise ProviderUnavailable(f"LDAP: a bind is answered with {result}")
        answer = answer_of(result)
        if answer.why:
            self.log.info(
                "LDAP: the bind of {account} is answered with {result}: {why}",
                account=account,
                result=result,
                why=answer.why,
            )
        return answer
