"""The system's ``crypt_r()``, called without the interpreter lock."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

_LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2", None)
"""glibc's and libxcrypt's names. ``None`` is the program itself, where musl has the function."""

_SPACE = 2**18
"""More than ``struct crypt_data`` has in any of them."""


def crypt(password: bytes, setting: bytes) -> bytes:
    """Hash a password; return ``b""`` if the library refuses to, or there is none.

    :param password: without NUL, and not longer than the library accepts.
    :param setting: the scheme with its parameters and the salt, as a hash begins with them.
    """
    function = _function()
    if function is None:
        return b""
    made: bytes | None = function(password, setting, ctypes.create_string_buffer(_SPACE))
    # A failure is NULL, or a text that is no hash.
    return made if made is not None and made.startswith(b"$") else b""


@cache
def supports(setting: bytes) -> bool:
    """Say whether the system has the library, and the library the scheme.

    :param setting: a cheap setting of the scheme. It is tried once.
    """
    return bool(crypt(b"", setting))


@cache
def _function() -> Callable[[bytes, bytes, ctypes.Array[ctypes.c_char]], bytes | None] | None:
    for name in _LIBRARIES:
        try:
            function = ctypes.CDLL(name).crypt_r
        except (OSError, AttributeError):
            continue
        function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
        function.restype = ctypes.c_char_p
        return function
    return None
