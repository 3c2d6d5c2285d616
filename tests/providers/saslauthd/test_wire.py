"""Tests for saslauthd's protocol."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.providers.saslauthd.wire import (
    MAX_STRING,
    BadAnswer,
    Verdict,
    answer_in,
    can_be_asked,
    question,
    verdict_of,
)

OUTAGES = (
    b"NO saslauthd internal error",
    b"NO internal mechanism failure",
    b"NO PAM start error",
    b"NO Username lookup failure: No route to host",
    b"NO Username shadow lookup failure: Permission denied",
    b"NO Insufficient permission to access NIS authentication database (saslauthd)",
    b"NO [ALERT] Couldn't contact remote authentication server",
    b"NO [ALERT] The remote authentication server is currently unavailable",
    b"NO krb5_verify_init_creds failed",
)
REFUSALS = (
    b"NO",
    b"NO ",
    b"NO \0",
    b"NO PAM auth error",
    b"NO Incorrect password",
    b"NO Invalid username",
    b"NO authentication failed",
    b"NO remote server rejected your credentials",
    b"NO Password expired",
)
GARBAGE = (b"", b"O", b"OKAY", b"NOT", b"ok", b"no", b"220 ready", b"\0\0", b"HTTP/1.1 200 OK")


def strings_in(asked: bytes) -> list[bytes]:
    """Read counted strings, as saslauthd does."""
    found = []
    while asked:
        (length,) = struct.unpack_from("!H", asked)
        found.append(asked[2 : 2 + length])
        assert len(found[-1]) == length
        asked = asked[2 + length :]
    return found


class WireTests(SynchronousTestCase):
    """Questions and answers."""

    @given(st.lists(st.binary(max_size=MAX_STRING), min_size=4, max_size=4))
    def test_question(self, strings: list[bytes]) -> None:
        """saslauthd reads the four strings that were written."""
        self.assertEqual(strings_in(question(*strings)), strings)

    @given(st.binary(max_size=1024), st.binary(max_size=20), st.integers(0, 1030))
    def test_pieces(self, text: bytes, more: bytes, end: int) -> None:
        """An answer is read once it is complete, and what follows it is not."""
        written = question(text)
        self.assertEqual(answer_in(written + more), text)
        piece = written[: min(end, len(written) - 1)]
        self.assertIsNone(answer_in(piece))

    @given(st.binary(max_size=3000))
    def test_anything(self, received: bytes) -> None:
        """Whatever comes is an answer, a part of one, or bad; only OK accepts a password."""
        try:
            answer = answer_in(received)
            verdict = None if answer is None else verdict_of(answer)
        except BadAnswer:
            return
        if verdict is Verdict.ACCEPTED:
            self.assertEqual(received[2:4], b"OK")
            self.assertIn(received[4:5], (b"", b" ", b"\0"))

    def test_too_long(self) -> None:
        """A length that no answer has is noticed before the answer is read."""
        with self.assertRaises(BadAnswer):
            answer_in(b"HT")

    def test_verdicts(self) -> None:
        """What saslauthd's mechanisms say is accepted, refused, or undecided."""
        for answer in (b"OK", b"OK Success.", b"OK remote authentication successful", b"OK\0"):
            self.assertIs(verdict_of(answer), Verdict.ACCEPTED, answer)
        for answer in REFUSALS:
            self.assertIs(verdict_of(answer), Verdict.REFUSED, answer)
        self.assertIs(verdict_of(b"NO PAM acct error"), Verdict.REFUSED_ACCOUNT)
        for answer in (*OUTAGES, *GARBAGE):
            with self.assertRaises(BadAnswer, msg=answer) as raised:
                verdict_of(answer)
            self.assertTrue(str(raised.exception).isprintable())

    def test_can_be_asked(self) -> None:
        """saslauthd is not asked about what it would read in another way."""
        for text in (b"", b"wonderland\0", b"\0", b"x" * 257):
            self.assertFalse(can_be_asked(text))
        self.assertTrue(can_be_asked(b"x" * 256))
