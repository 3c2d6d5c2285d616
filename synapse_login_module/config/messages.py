"""What is wrong with a configuration, in words for whoever wrote it.

No message holds a value that was given: it may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

_WANTED = {
    "bool_type": "true or false is wanted",
    "dict_type": "a mapping is wanted",
    "float_type": "a number is wanted",
    "int_type": "a whole number is wanted",
    "model_attributes_type": "a mapping is wanted",
    "model_type": "a mapping is wanted",
    "string_type": "text is wanted",
    "tuple_type": "a list is wanted",
}
_GIVEN: Sequence[tuple[type[Any], str]] = (
    (bool, "not true or false"),
    (str, "not text"),
    (int, "not a number"),
    (float, "not a number"),
    (Mapping, "not a mapping"),
    (list, "not a list"),
)


def problems(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """The path and the message of each thing that a validation found wrong.

    :param model: that was validated.
    """
    found = error.errors(include_url=False)
    unknown = [each for each in found if each["type"] == "extra_forbidden"]
    likely = {(*each["loc"][:-1], _likely(model, each["loc"])) for each in unknown}
    for each in found:
        if each["type"] == "missing" and each["loc"] in likely:
            continue  # it is there, mistyped
        if each["type"] == "too_short" and each["input"]:
            continue  # what is in it is told
        # The key of a mapping is named by the word that pydantic has for it.
        path = ".".join(str(part) for part in each["loc"] if part != "[key]")
        yield path, _message(each, model)


def close_to(name: str, known: Sequence[str]) -> str | None:
    """What was probably meant by a name, or ``None``."""
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
    if kind in _WANTED:
        if kind == "string_type" and isinstance(given, (int, float)):
            hint = "put it in quotes"
        return f"{_WANTED[kind]}, {_given(given)}{f': {hint}' if hint else ''}"
    if kind == "too_short":
        return "there is nothing in it; one entry is needed at least"
    message: str = error["msg"]
    return message.removeprefix("Value error, ").replace("Input should be", "it is to be", 1)


def _given(value: object) -> str:
    if value is None:
        return "and there is nothing"
    return next((name for kind, name in _GIVEN if isinstance(value, kind)), "not this")


def _question(likely: str | None) -> str:
    return f": is it {likely}?" if likely else ""


def _likely(model: type[BaseModel], location: Sequence[Any]) -> str | None:
    """The key that was probably meant by an unknown one."""
    around = _model_at(model, location[:-1])
    return close_to(str(location[-1]), list(around.model_fields)) if around else None


def _model_at(model: type[BaseModel], location: Sequence[Any]) -> type[BaseModel] | None:
    """The model that a part of what was given is to be."""
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
    """The model that an annotation names, and whether it is that of a mapping's values."""
    # On Python 3.10 `dict[str, X]` is an instance of `type`, and not a class for issubclass.
    is_class = isinstance(annotation, type) and get_origin(annotation) is None
    if is_class and issubclass(annotation, BaseModel):
        return annotation, False
    for each in get_args(annotation):
        found, is_mapping = _model_in(each)
        if found is not None:
            return found, is_mapping or get_origin(annotation) is dict
    return None, False
