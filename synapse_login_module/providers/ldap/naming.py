"""The names and the subjects of the entries that are found."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.model import (
    EmailIdentifier,
    Identifier,
    UserIdentifier,
    canonical_email,
    fold,
    localpart_from,
)
from synapse_login_module.providers.identifiers import Named, user_id_from
from synapse_login_module.providers.ldap.config import LDAPConfig
from synapse_login_module.providers.ldap.localparts import texts
from synapse_login_module.providers.ldap.messages import Entry, Result
from synapse_login_module.providers.ldap.subjects import Subjects


class Naming:
    """Tells whose entry it is that was found.

    :param config: the checked configuration.
    :param server_name: the homeserver's name.
    :ivar attributes: the names of the attributes that it reads.
    """

    log = Logger()

    def __init__(self, config: LDAPConfig, server_name: str) -> None:
        self._attributes = config.keys.attributes
        self._template = config.template
        self._server_name = server_name
        self._localpart = config.localpart
        self._subjects = Subjects(
            config.keys.attributes.subject,
            searchable=config.keys.base is not None,
            # A name may be made or given to another person, who would become an administrator too.
            required=config.keys.localpart is not None or config.admin_group is not None,
        )
        self.attributes: Sequence[str] = (
            *self._localpart.attributes,
            *self._subjects.attributes,
        )

    def who(self, found: Result, identifier: Identifier) -> Named | None:
        """Tell whose entry was found; return ``None`` if none was, or none that can be used.

        :param found: the result of the search.
        :param identifier: what was searched for.
        """
        if not found.entries:
            return None
        typed = identifier.user_id.localpart if isinstance(identifier, UserIdentifier) else ""
        name = self.name(found, str(identifier), typed)
        if name is None:
            return None
        template = self._template
        if template is not None and not typed and not template.makes(found.entries[0].dn):
            problem = "its entry has a name that bind_dn_template does not make"
            self._taken_for_unknown(identifier, problem)
            return None
        emails = texts(found.entries[0], self._attributes.mail)
        # Directories ignore some characters. Names with these would have rate limits of their own.
        if isinstance(identifier, EmailIdentifier) and not _is_among(identifier.address, emails):
            return None
        if typed and localpart_from(typed) is None and fold(typed) != fold(name):
            return None
        return Named(name, user_id_from(name, self._server_name))

    def name(self, found: Result, asked: str, typed: str) -> str | None:
        """Read the name of the entry that was found; return ``None`` if it is not clear.

        :param found: the result of the search.
        :param asked: what was searched for, for the log.
        :param typed: the local part that was searched for, which chooses among several names of one
            entry.
        """
        described = self._localpart.described
        values = self._localpart.names(found.entries[0])
        same = [value for value in values if fold(value) == fold(typed)]
        problem = None
        if found.several:
            problem = "there are several entries"
        elif not same and len(values) > 1:
            problem = f"its entry has several values of {described}"
        elif not any(values):
            problem = f"its entry has no {described}"
        if problem is None:
            return typed if typed in same else (same or list(values))[0]
        self._taken_for_unknown(asked, problem)
        return None

    def subject(self, entry: Entry, who: Named) -> str:
        """Make the subject of an entry.

        :raise UnusableAccount: when it has none, which is logged.
        """
        try:
            return self._subjects.of(entry, who.name)
        except ProviderUnavailable as error:
            self.log.error(
                "{problem} (attributes.subject): {account!r} cannot log in",
                problem=str(error),
                account=who.name,
            )
            raise

    def _taken_for_unknown(self, asked: object, problem: str) -> None:
        self.log.warn(
            "LDAP: {who} is taken for unknown: {problem}", who=str(asked), problem=problem
        )


def _is_among(address: str, emails: Sequence[str]) -> bool:
    return address in (canonical_email(email) for email in emails)
