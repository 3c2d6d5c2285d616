"""Tests for validating mappings against models."""

from __future__ import annotations

from typing import Annotated, Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, Field
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.config.validation import Duration, Strict, validate
from synapse_login_module.errors import ConfigError


def _no_x(value: str) -> str:
    if "x" in value:
        raise ValueError("has an x\nin it")
    return value


class Inner(Strict):
    """A part of the example."""

    size: Annotated[int, Field(gt=0)] = 1


class Example(Strict):
    """An example."""

    name: Annotated[str, AfterValidator(_no_x)]
    wait: Duration = 0
    parts: Annotated[tuple[Inner, ...], Field(strict=False)] = ()


class ValidateTests(SynchronousTestCase):
    """Validation and its errors."""

    def refusal(self, **given_: object) -> ConfigError:
        """Return the error of a validation."""
        error: ConfigError = self.assertRaises(ConfigError, validate, Example, given_)
        return error

    def test_good(self) -> None:
        """A valid mapping returns the model."""
        self.assertEqual(
            validate(Example, {"name": "a", "wait": "2s", "parts": [{"size": 3}]}),
            Example(name="a", wait=2000, parts=(Inner(size=3),)),
        )

    def test_paths(self) -> None:
        """An error has its path, also inside lists."""
        cases: list[tuple[str, dict[str, object]]] = [
            ("name", {}),
            ("name", {"name": 1}),
            ("nam", {"name": "a", "nam": 1}),
            ("parts.1.size", {"name": "a", "parts": [{}, {"size": 0}]}),
            ("parts.0.sise", {"name": "a", "parts": [{"sise": 1}]}),
            ("parts.0", {"name": "a", "parts": [1]}),
            ("wait", {"name": "a", "wait": "soon"}),
        ]
        for path, given_ in cases:
            self.assertEqual(self.refusal(**given_).path, path)

    def test_unknown_key(self) -> None:
        """An unknown key is reported with the closest known one."""
        self.assertEqual(str(self.refusal(name="a", nam=1)), "nam: unknown key: did you mean name?")

    def test_no_space_after_the_colon(self) -> None:
        """What stands behind a colon without a space may be a secret."""
        said = str(self.refusal(**{"name": "a", "pepper:SECRET": None}))
        self.assertEqual(said, "pepper:…: unknown key")

    def test_own_errors(self) -> None:
        """The message of a validator is reported on one line."""
        self.assertEqual(str(self.refusal(name="x")), "name: has an x in it")

    def test_no_values(self) -> None:
        """No error quotes a value."""
        cases: list[dict[str, object]] = [
            {"name": ["secret"]},
            {"name": "a", "wait": "secret"},
            {"name": "xsecret"},
        ]
        for given_ in cases:
            self.assertNotIn("secret", str(self.refusal(**given_)))

    def test_not_a_mapping(self) -> None:
        """A value that is no mapping gives an error."""
        cases: list[Any] = [[], None, "x", 1]
        for given_ in cases:
            self.assertRaises(ConfigError, validate, Example, given_)


class DurationTests(SynchronousTestCase):
    """Durations."""

    @given(st.integers(0, 10**9), st.sampled_from(("", "s", "m", "h", "d", "w", "y")))
    def test_units(self, number: int, unit: str) -> None:
        """A number with a unit is the number times the unit."""
        seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
        expected = number * (1000 * seconds[unit] if unit else 1)
        try:
            found = validate(Example, {"name": "a", "wait": f"{number}{unit}"})
        except ConfigError:
            self.assertGreater(expected, 100 * 31536000 * 1000)
        else:
            self.assertEqual(found.wait, expected)

    @given(st.text(max_size=8))
    def test_text(self, text: str) -> None:
        """Any text is a duration or gives a ConfigError."""
        try:
            self.assertGreaterEqual(validate(Example, {"name": "a", "wait": text}).wait, 0)
        except ConfigError as error:
            self.assertEqual(error.path, "wait")
