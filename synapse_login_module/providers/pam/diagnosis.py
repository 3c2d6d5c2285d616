"""The diagnosis of a PAM service, and of what this process may ask it. All calls block."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from synapse_login_module.errors import ProviderUnavailable
from synapse_login_module.model import Finding
from synapse_login_module.model.findings import (
    NO_ACCOUNT,
    failed,
    good,
    in_milliseconds,
    on_one_line,
    warning,
)
from synapse_login_module.providers.pam import nss
from synapse_login_module.providers.pam.accounts import UnixAccounts
from synapse_login_module.providers.pam.codes import Password, name_of, password_by
from synapse_login_module.providers.pam.config import PAMConfig
from synapse_login_module.providers.pam.users import UnixUsers

_FOLDERS = ("/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d")
_PRIVILEGE = "add this process to the group shadow, or use SaslauthdProvider: see docs, pam.rst"


def examine(config: PAMConfig, accounts: UnixAccounts) -> list[Finding]:
    """Look at the service's file, the name service, and what PAM says about accounts."""
    findings = [*_of_file(config.keys.service, config.pam.folder), *_of_password(config)]
    users = config.users
    if users is None:
        return findings
    findings += (problems := list(_of_groups(users)))
    return findings if problems else [*findings, *_of_account(users, accounts)]


def _of_file(service: str, folder: str | None) -> Iterator[Finding]:
    places = _FOLDERS if folder is None else (folder,)
    found = next((path for each in places if (path := Path(each, service)).is_file()), None)
    if found is not None:
        yield good("service", str(found))
        return
    advice = f"make /etc/pam.d/{service}: see docs, pam.rst"
    yield warning(
        "service", f"there is no {places[0]}/{service}, so PAM uses that of other", advice
    )


def _of_password(config: PAMConfig) -> Iterator[Finding]:
    """Have PAM check a password of a user who does not exist."""
    what = "pam_authenticate"
    began = time.perf_counter()
    code = config.pam.authenticate(NO_ACCOUNT.encode(), b"x").code
    took = in_milliseconds(time.perf_counter() - began)
    verdict = password_by(code)
    if verdict is Password.ACCEPTED:
        found = "it accepts any password, even for a user who does not exist"
        yield failed(what, found, f"correct the auth lines of the service {config.keys.service}")
    elif verdict in (Password.UNANSWERED, Password.UNDECIDED):
        advice = "see the log of PAM (journalctl, auth.log) and the service's file"
        yield failed(what, f"it answered {name_of(code)}", advice)
    else:
        yield good(what, f"answered {name_of(code)} for an unknown user in {took}")


def _of_groups(users: UnixUsers) -> Iterator[Finding]:
    for group in users.groups:
        try:
            number = nss.number_of_group(group)
        except ProviderUnavailable:  # the next finding says so
            return
        if number is None:
            advice = "make the group, or correct groups: no user can log in by it"
            yield failed(f"group {group}", "it does not exist", advice)


def _of_account(users: UnixUsers, accounts: UnixAccounts) -> Iterator[Finding]:
    """Look at the account of some user."""
    what = "pam_acct_mgmt" if accounts.checks_accounts else "name service"
    try:
        users.named(NO_ACCOUNT)
        user = users.example()
        if user is None:
            found = "no user that may log in is listed, so looking at one was not tried"
            yield good(what, found)
            return
        status = accounts.status_of_user(user)
    except ProviderUnavailable as error:
        is_of_pam = "pam_acct_mgmt" in str(error)
        yield failed(what, on_one_line(error), _PRIVILEGE if is_of_pam else "start it")
        return
    state = "unknown to PAM" if status is None else status.value
    yield good(what, f"the account of {user.name} is {state}")
