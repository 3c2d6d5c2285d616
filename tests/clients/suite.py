"""Runs the conformance suite, as a program, against a homeserver."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping

from tests.clients.case import ProgramCase
from tests.conformance.target import Feature
from tests.support.synapse.profile import PASSWORD, SERVER_NAME

ACCOUNTS = {
    "CONFORMANCE_USER": "alice",
    "CONFORMANCE_PASSWORD": PASSWORD,
    "CONFORMANCE_EMAIL": "alice@example.com",
    "CONFORMANCE_USER_2": "conformance-bob",
    "CONFORMANCE_PASSWORD_2": "another-password-of-the-tests",
    "CONFORMANCE_LOCKED_USER": "lock",
    "CONFORMANCE_LOCKED_PASSWORD": PASSWORD,
}
DEACTIVATED = {
    "CONFORMANCE_DEACTIVATED_USER": "gone",
    "CONFORMANCE_DEACTIVATED_PASSWORD": PASSWORD,
}
PHONE = {"CONFORMANCE_PHONE": "447700900123"}

_SUMMARY = re.compile(r"^(?:PASSED|FAILED) \((.*)\)$", re.MULTILINE)
_PROBLEM = re.compile(r"^\[(?:FAIL|ERROR)\]$.*?(?=^={79}$|^-{79}$)", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"^tests\.conformance\.(test_\w+\.\w+\.\w+)$", re.MULTILINE)


class SuiteCase(ProgramCase):
    """A test case that runs the suite."""

    async def run_suite(
        self, base_url: str, features: Iterable[Feature], accounts: Mapping[str, str]
    ) -> tuple[Mapping[str, int], set[str], str]:
        """Run the suite; return the counts of results, the tests that did not pass, the output."""
        trial = ["-m", "twisted.trial", f"--temp-directory={self.folder() / 'trial'}"]
        _, output = await self.run_program(
            [sys.executable, *trial, "tests.conformance"],
            {
                "CONFORMANCE_BASE_URL": base_url,
                "CONFORMANCE_SERVER_NAME": SERVER_NAME,
                "CONFORMANCE_FEATURES": ",".join(sorted(each.value for each in features)),
                **accounts,
            },
        )
        summary = _SUMMARY.search(output)
        if summary is None:
            self.fail(output)
        counts = {
            name: int(count) for name, count in (part.split("=") for part in summary[1].split(", "))
        }
        failed = {name for problem in _PROBLEM.findall(output) for name in _TEST.findall(problem)}
        return counts, failed, output
