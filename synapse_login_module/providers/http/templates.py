"""Values of a configured shape: templates with placeholders, and paths of values."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_PLACEHOLDER = re.compile(r"\{(\w+|secret\.[^{}\s]+)\}")
_JWT = re.compile(r"[\w-]*\.([\w-]+)\.[\w-]*", re.ASCII)


def placeholders(template: object) -> Iterator[str]:
    """List the names in braces in the texts of a template."""
    if isinstance(template, str):
        yield from _PLACEHOLDER.findall(template)
    elif isinstance(template, Mapping):
        for value in template.values():
            yield from placeholders(value)
    elif isinstance(template, list):
        for value in template:
            yield from placeholders(value)


def fill(template: object, values: Mapping[str, str]) -> Any:
    """Replace the placeholders of a template in one pass: braces in a value stay as they are."""
    if isinstance(template, str):
        return fill_text(template, values)
    if isinstance(template, Mapping):
        return {key: fill(value, values) for key, value in template.items()}
    if isinstance(template, list):
        return [fill(value, values) for value in template]
    return template


def fill_text(
    template: str, values: Mapping[str, str], quote: Callable[[str], str] = lambda value: value
) -> str:
    """Replace the placeholders of a text by their quoted values."""
    return _PLACEHOLDER.sub(lambda match: quote(values[match[1]]), template)


def look_up(given: object, path: str) -> Any:
    """Return the value at a path such as ``user.emails.0``; ``None`` if there is none.

    In ``id_token.jwt.sub``, ``jwt`` reads the claims of the token that is the text before it.
    """
    for part in path.split("."):
        if isinstance(given, dict):
            given = given.get(part)
        elif isinstance(given, list) and part.isdecimal() and int(part) < len(given):
            given = given[int(part)]
        elif isinstance(given, str) and part == "jwt":
            given = _claims(given)
        else:
            return None
    return given


def _claims(token: str) -> Any:
    """Read the claims of a signed JSON Web Token, without a check of its signature.

    The service itself sent the token, over the connection whose certificate was verified. That is
    enough (OpenID Connect Core 1.0, section 3.1.3.7, point 6).

    :return: ``None`` when it is no such token.
    """
    match = _JWT.fullmatch(token)
    if match is None:
        return None
    try:
        return json.loads(base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4)))
    except (ValueError, RecursionError):
        return None
