"""Validates mappings against pydantic models, with one line and the path for each mistake."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from synapse_login_module.config.messages import problems
from synapse_login_module.errors import ConfigError, Mistakes, described

_UNITS = {
    "": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
    "y": 365 * 86_400_000,
}
_LONGEST = 1000 * _UNITS["y"]
_DURATION = re.compile(r"(\d{1,15})([smhdwy]?)", re.ASCII)


class Strict(BaseModel):
    """A model that rejects unknown keys, converts no types, and quotes no value in its errors.

    :cvar hints: advice by key, for unknown keys and for values of a wrong type.
    """

    hints: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, allow_inf_nan=False
    )


M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


def validate(model: type[M], given: Mapping[str, Any]) -> M:
    """Validate a mapping against a model.

    :raise ConfigError: with every mistake in it.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        mistakes = Mistakes()
        for path, problem in problems(error, model):
            mistakes.add(path, problem)
        mistakes.raise_any()
        raise AssertionError("a validation failed for no reason") from error
    except RecursionError:
        raise ConfigError("", "nested too deeply") from None


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return the path and the message of the first mistake that a validation found.

    Neither quotes a value.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return path, "unknown key" if first["type"] == "extra_forbidden" else message


def config_path(path: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function, and turn its exceptions into errors at a path of the configuration.

    :raise ConfigError: at the path.
    """
    try:
        return function(*arguments)
    except ConfigError as error:
        raise error.within(path) from None
    except (OSError, ValueError) as error:  # for instance of an invalid path
        raise ConfigError(path, str(error)) from None
    except Exception as error:  # for instance of a third party's plugin
        raise ConfigError(path, described(error)) from None


def _milliseconds(given: object) -> int:
    if isinstance(given, bool):
        given = str(given)
    match = _DURATION.fullmatch(str(given)) if isinstance(given, (int, str)) else None
    if match is None:
        raise ValueError("not a duration: write 30s, 5m, 12h, 30d, or milliseconds")
    milliseconds = int(match[1]) * _UNITS[match[2]]
    if milliseconds > _LONGEST:
        raise ValueError("longer than a thousand years")
    return milliseconds


def _file_path(given: str) -> str:
    if not given or "\0" in given:
        raise ValueError("not the path of a file")
    return given


FilePath = Annotated[str, AfterValidator(_file_path)]
"""Text that can be the path of a file."""

Duration = Annotated[int, BeforeValidator(_milliseconds)]
"""Whole milliseconds, given as a number or as Synapse's ``5m`` (units s, m, h, d, w, y)."""
