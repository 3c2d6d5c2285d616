"""Words the mistakes in a configuration for the operator who wrote it.

No message quotes a value of the configuration, because it may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

_EXPECTED = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "model_attributes_type": "must be a mapping",
    "model_type": "must be a mapping",
    "string_type": "must be text",
    "tuple_type": "must be a list",
}
"""Messages by pydantic's types of errors."""

_GIVEN: Sequence[tuple[type[Any], str]] = (
    (bool, "not true or false"),
    (str, "not text"),
    (int, "not a number"),
    (float, "not a number"),
    (Mapping, "not a mapping"),
    (list, "not a list"),
)


def problems(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield the path and the message of each mistake that a validation found.

    :param model: the model that the configuration was validated against.
    """
    found = error.errors(include_url=False)
    unknown = [each for each in found if each["type"] == "extra_forbidden"]
    likely = {(*each["loc"][:-1], _likely(model, each["loc"])) for each in unknown}
    for each in found:
        if each["type"] == "missing" and each["loc"] in likely:
            continue  # its mistyped key is reported
        if each["type"] == "too_short" and each["input"]:
            continue  # the mistakes in its entries are reported
        # After a wrong key of a mapping, pydantic adds "[key]" to the location.
        parts = [str(part) for part in each["loc"] if part != "[key]"]
        if each["type"] == "extra_forbidden":
            # An unknown key may be called "[key]" itself.
            parts = parts or [str(each["loc"][-1])]
            # YAML takes `pepper:SECRET`, without a space, for a key.
            key, colon, rest = parts[-1].partition(":")
            parts[-1] = f"{key}:…" if rest else key + colon
        path = ".".join(parts)
        yield path, _message(each, model)


def close_to(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that a misspelled one probably means, or ``None``."""
    return next(iter(get_close_matches(name.lower(), known, n=1, cutoff=0.7)), None)


def _message(error: Any, model: type[BaseModel]) -> str:
    kind, location, given = error["type"], error["loc"], error["input"]
    hints: Mapping[str, str] = getattr(_model_at(model, location[:-1]), "hints", {})
    hint = hints.get(str(location[-1])) if location else None
    if kind == "extra_forbidden":
        likely = _likely(model, location)
        return f"unknown key: {hint}" if hint else f"unknown key{_question(likely)}"
    if kind == "missing":
        return "it is missing"
    if kind in _EXPECTED:
        if kind == "string_type" and isinstance(given, (int, float)):
            hint = "put it in quotes"
        return f"{_EXPECTED[kind]}, {_given(given)}{f': {hint}' if hint else ''}"
    if kind == "too_short":
        return "must have at least one entry, but is empty"
    message: str = error["msg"]
    return message.removeprefix("Value error, ").replace("Input should be", "must be", 1)


def _given(value: object) -> str:
    if value is None:
        return "but is empty"
    return next((name for kind, name in _GIVEN if isinstance(value, kind)), "not this")


def _question(likely: str | None) -> str:
    return f": did you mean {likely}?" if likely else ""


def _likely(model: type[BaseModel], location: Sequence[Any]) -> str | None:
    """Return the key that an unknown key probably means, or ``None``."""
    around = _model_at(model, location[:-1])
    return close_to(str(location[-1]), list(around.model_fields)) if around else None


def _model_at(model: type[BaseModel], location: Sequence[Any]) -> type[BaseModel] | None:
    """Return the model that a part of the configuration is validated against, or ``None``."""
    found: type[BaseModel] | None = model
    parts = iter(location)
    for part in parts:
        if isinstance(part, int):  # of a list
            continue
        field = found.model_fields.get(str(part)) if found else None
        if field is None:
            return None
        found, is_mapping = _model_in(field.annotation)
        if is_mapping:
            next(parts, None)
    return found


def _model_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Return the model in an annotation, and whether it is the type of a mapping's values."""
    # On Python 3.10 `dict[str, X]` is an instance of `type`, and not a class for issubclass.
    is_class = isinstance(annotation, type) and get_origin(annotation) is None
    if is_class and issubclass(annotation, BaseModel):
        return annotation, False
    for each in get_args(annotation):
        found, is_mapping = _model_in(each)
        if found is not None:
            return found, is_mapping or get_origin(annotation) is dict
    return None, False
