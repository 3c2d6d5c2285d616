"""The searches that find an account, by name, e-mail address, telephone number or id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from synapse_login_module.model import (
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    UserId,
    UserIdentifier,
)
from synapse_login_module.providers.identifiers import is_name, own_user_id
from synapse_login_module.providers.ldap.config import LDAPConfig
from synapse_login_module.providers.ldap.filters import (
    ANY,
    both,
    equals,
    filled,
    for_any_name,
    one_of,
)
from synapse_login_module.providers.ldap.localparts import some, unmatched
from synapse_login_module.providers.ldap.messages import Search
from synapse_login_module.providers.ldap.names import filled_name
from synapse_login_module.providers.ldap.statuses import NO_ATTRIBUTES


class Searches:
    """Makes searches. ``None`` stands for a search that could find no account.

    :param config: the checked configuration.
    :param server_name: the homeserver's name.
    :param attributes: the names of the attributes to return.
    """

    def __init__(self, config: LDAPConfig, server_name: str, attributes: Sequence[str]) -> None:
        self._config = config
        self._base = config.keys.base
        self._server_name = server_name
        self._attributes = attributes
        self._localpart = config.localpart
        self._any_name = None
        if config.template is None:
            user_filter = config.user_filter
            self._any_name = (
                some(config.localpart) if user_filter is None else for_any_name(user_filter)
            )

    def for_identifier(self, identifier: Identifier) -> Search | None:
        """Search for the account of a client's identifier; ``None`` when there can be none."""
        attributes = self._config.keys.attributes
        if isinstance(identifier, EmailIdentifier):
            return self._for_values(attributes.mail, identifier.address)
        if isinstance(identifier, PhoneIdentifier):
            number = identifier.msisdn
            return self._for_values(attributes.phone, number, f"+{number}")
        return self._for_user(identifier.user_id)

    def for_made_name(self, identifier: Identifier) -> Search | None:
        """Search for the account whose user ID a client gives, where users log in by another name.

        A client that wants the password once more gives the user ID. ``None`` where the names are
        the same, or ``localpart`` is not configured.
        """
        if self._config.user_filter is None or self._config.keys.localpart is None:
            return None
        if not isinstance(identifier, UserIdentifier):
            return None
        localpart = identifier.user_id.localpart
        made = self._localpart.makes(localpart)
        return self._below(
            self._base or "",
            self._of_accounts(unmatched(self._localpart, localpart) if made is None else made),
        )

    def for_localpart(self, localpart: str) -> Search | None:
        """Search for the entry of the user who logs in by this name; ``None`` when there can be
        none.
        """
        user_filter = self._config.user_filter
        if self._config.template is not None:
            return self._named(localpart)
        if user_filter is not None:
            return self._of_users(filled(user_filter, localpart))
        made = self._localpart.makes(localpart)
        return None if made is None else self._of_users(made)

    def for_nobody(self, name: str) -> Search:
        """Search in the way of :meth:`for_localpart`.

        :param name: a name that no entry has.
        """
        found = self.for_localpart(name)
        return self._of_users(unmatched(self._localpart, name)) if found is None else found

    def for_user_id(self, user_id: UserId) -> Search | None:
        """Search for the account that has this user ID; ``None`` when there can be none.

        The user ID is made from ``localpart`` or ``attributes.uid``, whereas ``filter`` or
        ``bind_dn_template`` may have users log in by another attribute.
        """
        template, base = self._config.template, self._base
        if template is not None:
            uid = self._config.keys.attributes.uid
            base = None if template.is_named_by(uid) else template.parent
        elif self._config.user_filter is None:
            base = None
        if base is None or own_user_id(str(user_id), self._server_name) is None:
            return self._for_user(user_id)
        made = self._localpart.makes(user_id.localpart)
        return None if made is None else self._below(base, self._of_accounts(made))

    def for_id(self, attribute: str, value: str | bytes) -> Search | None:
        """Search for the entry with this id, whatever its name is now; ``None`` without a base."""
        if self._base is None:
            return None
        wanted = self._of_accounts(equals(attribute, value))
        return Search(self._base, True, wanted, NO_ATTRIBUTES)

    def for_any_account(self) -> Search | None:
        """Search for any account; ``None`` if accounts have no common parent."""
        template = self._config.template
        below = self._base if template is None else template.parent
        if below is None:
            return None
        any_account = both(some(self._localpart), self._any_name)
        return Search(below, True, any_account, NO_ATTRIBUTES)

    def _for_user(self, user_id: UserId) -> Search | None:
        if own_user_id(str(user_id), self._server_name) is None:
            return None
        return self.for_localpart(user_id.localpart)

    def _for_values(self, attribute: str | None, *values: str) -> Search | None:
        if attribute is None or self._base is None or not all(map(is_name, values)):
            return None
        wanted = one_of([equals(attribute, value) for value in values])
        return self._below(self._base, self._of_accounts(wanted))

    def _named(self, localpart: str) -> Search:
        name = filled_name(self._config.keys.bind_dn_template or "", localpart)
        return Search(name, False, self._of_group(ANY), self._attributes)

    def _of_users(self, wanted: Any) -> Search:
        assert self._base is not None  # required where entries are found by a filter
        return self._below(self._base, self._of_group(wanted))

    def _below(self, base: str, wanted: Any) -> Search:
        return Search(base, True, wanted, self._attributes)

    def _of_accounts(self, wanted: Any) -> Any:
        """Add the condition that a login by some name could find the entry."""
        return self._of_group(both(wanted, self._any_name))

    def _of_group(self, wanted: Any) -> Any:
        """Add the condition that the entry is in the configured group."""
        return both(wanted, self._config.group_filter)
