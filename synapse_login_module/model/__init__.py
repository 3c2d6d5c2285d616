"""Frozen values that the parts of the service pass to one another.

Times are whole milliseconds since the Unix epoch, and ``None`` means "never". Durations are whole
milliseconds, and ``None`` means "no limit".

A value that every request makes is a named tuple, because a frozen dataclass takes six times as
long to make.
"""

from synapse_login_module.model.accounts import (
    Account,
    AccountStatus,
    Claim,
    Link,
    require_active,
)
from synapse_login_module.model.findings import Finding, Level
from synapse_login_module.model.homeservers import (
    APPLICATION_SERVICE,
    MAX_HOMESERVER_DEVICE_ID,
    DeviceDeletion,
    HomeserverAccount,
    HomeserverPolicy,
    LockedAccounts,
    NameStatus,
    OwedDeletions,
)
from synapse_login_module.model.importing import (
    DevicelessTokens,
    HomeserverDevice,
    HomeserverUser,
    ImportedSession,
    ImportOutcome,
)
from synapse_login_module.model.logins import (
    Bucket,
    Client,
    LoginRequest,
    PasswordLogin,
    Rate,
    ServiceLogin,
    TokenLogin,
)
from synapse_login_module.model.names import (
    MAX_USER_ID,
    EmailIdentifier,
    Identifier,
    PhoneIdentifier,
    UserId,
    UserIdentifier,
    canonical_email,
    fold,
    localpart_from,
)
from synapse_login_module.model.sessions import (
    EndedBatch,
    Login,
    LoginToken,
    PresentedToken,
    Pruned,
    SeenSession,
    Session,
    SessionCounts,
    SessionInfo,
    TokenKey,
    TokenPair,
    TokenPolicy,
)
from synapse_login_module.model.watching import LinkCounts, WatchedLink

__all__ = [
    "APPLICATION_SERVICE",
    "MAX_HOMESERVER_DEVICE_ID",
    "MAX_USER_ID",
    "Account",
    "AccountStatus",
    "Bucket",
    "Claim",
    "Client",
    "DeviceDeletion",
    "DevicelessTokens",
    "EmailIdentifier",
    "EndedBatch",
    "Finding",
    "HomeserverAccount",
    "HomeserverDevice",
    "HomeserverPolicy",
    "HomeserverUser",
    "Identifier",
    "ImportOutcome",
    "ImportedSession",
    "Level",
    "Link",
    "LinkCounts",
    "LockedAccounts",
    "Login",
    "LoginRequest",
    "LoginToken",
    "NameStatus",
    "OwedDeletions",
    "PasswordLogin",
    "PhoneIdentifier",
    "PresentedToken",
    "Pruned",
    "Rate",
    "SeenSession",
    "ServiceLogin",
    "Session",
    "SessionCounts",
    "SessionInfo",
    "TokenKey",
    "TokenLogin",
    "TokenPair",
    "TokenPolicy",
    "UserId",
    "UserIdentifier",
    "WatchedLink",
    "canonical_email",
    "fold",
    "localpart_from",
    "require_active",
]
