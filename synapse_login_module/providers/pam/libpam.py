"""Linux-PAM by way of ctypes: check a password, and look at an account.

No package of PyPI does what a service needs here, so these few calls are bound directly, and there
is nothing to install but the system's own libpam. ``python-pam`` 2.1 and ``pamela`` 1.2, both under
the MIT licence, are such bindings too. Neither sets ``PAM_FAIL_DELAY``, so a thread sleeps for some
two seconds at each wrong password. Neither forbids empty passwords
(``PAM_DISALLOW_NULL_AUTHTOK``). ``python-pam`` cannot tell which user a module has made of the name
(``PAM_USER``), and the one call of ``pamela`` does not say whether the password or the account was
refused. Both make a new callback in each call.

Each call uses a handle of its own, and ctypes releases the lock of Python meanwhile, so calls on
several threads run at once. A call cannot be interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import (
    CDLL,
    CFUNCTYPE,
    POINTER,
    RTLD_GLOBAL,
    Structure,
    byref,
    c_char_p,
    c_int,
    c_size_t,
    c_uint,
    c_void_p,
    cast,
    create_string_buffer,
    memset,
    pointer,
    sizeof,
)
from typing import Any, NamedTuple

from synapse_login_module.errors import ConfigError
from synapse_login_module.providers.pam.codes import Code, Password, password_by

_LIBRARY = "libpam.so.0"

_USER = 2
_FAIL_DELAY = 10
_DISALLOW_NULL_AUTHTOK = 0x1
_SILENT = 0x8000
_FLAGS = _SILENT | _DISALLOW_NULL_AUTHTOK
_PROMPT_ECHO_OFF, _ERROR_MSG, _TEXT_INFO = 1, 3, 4


class _Message(Structure):
    _fields_ = (("style", c_int), ("text", c_char_p))


class _Response(Structure):
    _fields_ = (("text", c_void_p), ("code", c_int))


class _Secret(Structure):
    """What a conversation is told: the password, and whether it was asked for more than that."""

    _fields_ = (("password", c_void_p), ("is_unanswered", c_int))


_Converse: Any = CFUNCTYPE(
    c_int,
    c_int,
    POINTER(POINTER(_Message)),
    POINTER(POINTER(_Response)),
    POINTER(_Secret),
)
_Delay: Any = CFUNCTYPE(None, c_int, c_uint, c_void_p)


class _Conversation(Structure):
    _fields_ = (("converse", _Converse), ("secret", POINTER(_Secret)))


class Checked(NamedTuple):
    """What PAM said about a password.

    :param code: the result of ``pam_authenticate``.
    :param account: the result of ``pam_acct_mgmt``; :attr:`~Code.IGNORE` if the password was not
        accepted.
    :param user: the name of the user, which modules may have changed.
    """

    code: int
    account: int = Code.IGNORE
    user: bytes = b""


class LibPAM:
    """The calls of libpam, for one service.

    :param service: the name of a file in ``/etc/pam.d``.
    :ivar folder: another folder to read the file from; ``None`` for the system's own.
    :raise ConfigError: when the library cannot be loaded.
    """

    def __init__(self, service: str, folder: str | None = None) -> None:
        try:
            # Global, since some modules do not say that they need libpam.
            CDLL(_LIBRARY, RTLD_GLOBAL)
        except OSError:
            problem = f"{_LIBRARY} cannot be loaded: this provider needs Linux-PAM (libpam0g)"
            raise ConfigError("", problem) from None
        self._service = service.encode("ascii")
        self.folder = folder
        self._lib: Any = CDLL(None)
        for name, types in (
            ("pam_start", (c_char_p, c_char_p, c_void_p, c_void_p)),
            ("pam_start_confdir", (c_char_p, c_char_p, c_void_p, c_char_p, c_void_p)),
            ("pam_set_item", (c_void_p, c_int, c_void_p)),
            ("pam_get_item", (c_void_p, c_int, c_void_p)),
            ("pam_authenticate", (c_void_p, c_int)),
            ("pam_acct_mgmt", (c_void_p, c_int)),
            ("pam_end", (c_void_p, c_int)),
        ):
            if hasattr(self._lib, name):  # pam_start_confdir is of Linux-PAM 1.4
                getattr(self._lib, name).argtypes = types
        # The modules free the answers, so these come from the C library.
        self._lib.calloc.argtypes, self._lib.calloc.restype = (c_size_t, c_size_t), c_void_p
        self._lib.strdup.argtypes, self._lib.strdup.restype = (c_void_p,), c_void_p
        self._lib.free.argtypes, self._lib.free.restype = (c_void_p,), None
        self._converse = _Converse(self._answer)
        self._no_delay = _Delay(_do_not_wait)

    def authenticate(self, user: bytes, password: bytes) -> Checked:
        """Check a password, and if it is right the account. Neither holds a NUL byte.

        A failure does not wait for the delay that modules ask for.
        """
        buffer = create_string_buffer(password)
        secret = _Secret(cast(buffer, c_void_p))
        try:
            with self._transaction(user, secret) as transaction:
                code = transaction.call("pam_authenticate")
                if secret.is_unanswered and password_by(code) is Password.UNDECIDED:
                    return Checked(Code.CONV_ERR)  # most modules make another error of it
                if code != Code.SUCCESS:
                    return Checked(code)
                account = transaction.call("pam_acct_mgmt")
                return Checked(code, account, transaction.user())
        except _NotStarted as error:
            return Checked(error.code)
        finally:
            memset(buffer, 0, sizeof(buffer))

    def account(self, user: bytes) -> int:
        """Look at an account without a password; return the result of ``pam_acct_mgmt``."""
        try:
            with self._transaction(user, _Secret()) as transaction:
                return transaction.call("pam_acct_mgmt")
        except _NotStarted as error:
            return error.code

    @contextmanager
    def _transaction(self, user: bytes, secret: _Secret) -> Iterator[_Transaction]:
        conversation = _Conversation(self._converse, pointer(secret))
        handle = c_void_p()
        if self.folder is None:
            code = self._lib.pam_start(self._service, user, byref(conversation), byref(handle))
        else:
            code = self._lib.pam_start_confdir(
                self._service, user, byref(conversation), self.folder.encode(), byref(handle)
            )
        if code != Code.SUCCESS:
            raise _NotStarted(code)
        transaction = _Transaction(self._lib, handle)
        try:
            self._lib.pam_set_item(handle, _FAIL_DELAY, cast(self._no_delay, c_void_p))
            yield transaction
        finally:
            self._lib.pam_end(handle, transaction.code)

    def _answer(self, count: int, messages: Any, answers: Any, secret: Any) -> int:
        """Answer the questions of a module: the password wherever the typing would be hidden.

        Another question, such as for a code, has no answer.
        """
        array = self._lib.calloc(count, sizeof(_Response))
        if array is None:
            return Code.BUF_ERR
        given = cast(array, POINTER(_Response))
        for index in range(count):
            style = messages[index].contents.style
            if style in (_TEXT_INFO, _ERROR_MSG):
                continue
            if style == _PROMPT_ECHO_OFF and secret.contents.password:
                given[index].text = self._lib.strdup(secret.contents.password)
                continue
            secret.contents.is_unanswered = 1
            for each in range(index):
                self._lib.free(given[each].text)
            self._lib.free(array)
            return Code.CONV_ERR
        answers[0] = given
        return Code.SUCCESS


class _NotStarted(Exception):
    """``pam_start`` has failed.

    :param code: its result.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Transaction:
    """A handle of PAM.

    :ivar code: the result of the last call, which ``pam_end`` is told.
    """

    def __init__(self, lib: Any, handle: c_void_p) -> None:
        self._lib = lib
        self._handle = handle
        self.code: int = Code.SUCCESS

    def call(self, function: str) -> int:
        """Have the modules do their work; return the result."""
        self.code = getattr(self._lib, function)(self._handle, _FLAGS)
        return self.code

    def user(self) -> bytes:
        """Return the name of the user."""
        name = c_void_p()
        self._lib.pam_get_item(self._handle, _USER, byref(name))
        return cast(name, c_char_p).value or b""


def _do_not_wait(result: int, microseconds: int, password: int | None) -> None:
    """Be called by libpam in the place of its own sleep."""
