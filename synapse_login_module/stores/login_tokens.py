"""Login tokens of a store of derived tokens: each begins one session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from synapse_login_module.errors import ExpiredToken, UnknownToken
from synapse_login_module.model import LoginToken, TokenPolicy
from synapse_login_module.stores.keys import SharedKeys
from synapse_login_module.stores.names import free_id
from synapse_login_module.stores.rows import LoginTokenRow, Rows
from synapse_login_module.tokens.format import SALT_SIZE, KeyRing, ParsedToken, TokenKind, parse


class KeepsLoginTokens:
    """The part of a store of derived tokens that keeps the login tokens."""

    _keys: KeyRing
    _shared: SharedKeys
    _policy: TokenPolicy
    _random: Callable[[int], bytes]
    _now: Callable[[], int]
    _with_token: Callable[..., Deferred[Any]]

    def make_login_token(self, user_id: str) -> Deferred[LoginToken]:
        """Issue a login token; see :class:`~synapse_login_module.interfaces.ITokenStore`."""
        now, lifetime = self._now(), self._policy.login_token
        drawn: list[int] = []

        def work(rows: Rows) -> LoginToken:
            self._keys.renew()
            key_id = self._shared.signing(rows)
            token_id = free_id(
                self._random, now, drawn, lambda number: rows.login_token(number) is None
            )
            row = LoginTokenRow(token_id, user_id, self._random(SALT_SIZE), now + lifetime)
            rows.insert_login_token(row, now)
            token = self._keys.derive(TokenKind.LOGIN, key_id, token_id, 0, row.salt)
            return LoginToken(token, lifetime)

        self._shared.follow()
        return self._shared.sign(work, lambda made: made)

    def login_token_owner(self, token: str) -> Deferred[str]:
        """Find a token's user; see :class:`~synapse_login_module.interfaces.ITokenStore`."""
        now = self._now()
        return self._with_token(
            TokenKind.LOGIN,
            token,
            lambda rows, parsed: self._login_token(rows, parsed, now).user_id,
            lambda owner: owner,
        )

    def _login_token(self, rows: Rows, parsed: ParsedToken, now: int) -> LoginTokenRow:
        row = rows.login_token(parsed.session_id)
        if row is None or row.expires_at <= now:
            raise UnknownToken
        try:
            authentic = self._shared.verify(rows, parsed, row.salt, likely=True)
        except ExpiredToken:  # made under a key that has been retired
            raise UnknownToken from None
        if not authentic:
            raise UnknownToken
        return row

    def _require_login_token(self, rows: Rows, token: str, user_id: str, now: int) -> None:
        """Reject a token that is not a valid login token of a user, changing nothing."""
        parsed = parse(TokenKind.LOGIN, token)
        if parsed is None or self._login_token(rows, parsed, now).user_id != user_id:
            raise UnknownToken

    def _use_login_token(self, rows: Rows, token: str) -> None:
        """Delete a login token that has been found valid."""
        parsed = parse(TokenKind.LOGIN, token)
        if parsed is None or not rows.delete_login_token(parsed.session_id):
            raise UnknownToken
