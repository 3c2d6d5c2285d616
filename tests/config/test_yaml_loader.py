"""Tests for reading YAML files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.config import yaml_loader
from synapse_login_module.errors import ConfigError

_NOBODY = 65534


class YAMLCase(SynchronousTestCase):
    """A test case that reads YAML files."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def load(self, text: str | bytes) -> dict[str, Any]:
        """Load a file with this text."""
        raw = text.encode("utf-8") if isinstance(text, str) else text
        self.path.write_bytes(raw)
        return yaml_loader.load(self.path)

    def refusal(self, text: str | bytes) -> str:
        """Return the one-line error of a file with this text."""
        error = self.assertRaises(ConfigError, self.load, text)
        self.assertEqual(len(str(error).splitlines()), 1, ascii(str(error)))
        return str(error)


class GoodTests(YAMLCase):
    """Values as they are read."""

    def test_types(self) -> None:
        """Text, numbers, booleans, null, lists and mappings are read as such."""
        self.assertEqual(
            self.load(
                "a: text\nb: 12\nc: -3\nd: 1.5\ne: true\nf: null\ng: [1, x]\nh: {i: 0}\nj: '12'\n"
                "k:\nl: 0.003\nm: 1.0e+3\n"
            ),
            {
                "a": "text",
                "b": 12,
                "c": -3,
                "d": 1.5,
                "e": True,
                "f": None,
                "g": [1, "x"],
                "h": {"i": 0},
                "j": "12",
                "k": None,
                "l": 0.003,
                "m": 1000.0,
            },
        )

    def test_surprises(self) -> None:
        """Times, dates and odd numbers of YAML 1.1 are read as text."""
        for text in ("1:30", "1:30:00", "-1:30", "1:30.5", "2024-01-01", "0x1F", "0b1", "1_000"):
            self.assertEqual(self.load(f"a: {text}"), {"a": text})
        self.assertEqual(self.load("a: 0777"), {"a": "0777"})
        self.assertEqual(self.load("a: 2024-01-01T00:00:00Z"), {"a": "2024-01-01T00:00:00Z"})

    def test_hash(self) -> None:
        """A bcrypt hash is read as text, with and without quotes."""
        text = "$2b$12$cHiiJMhiYPk2I85NxwLCrO/fuFQ6bLqyOg8xshhnIHrljVj8DA.mC"
        self.assertEqual(self.load(f'a: {text}\nb: "{text}"'), {"a": text, "b": text})

    def test_encodings(self) -> None:
        """UTF-8 is read, with and without a byte order mark."""
        self.assertEqual(self.load("a: é"), {"a": "é"})
        self.assertEqual(self.load(b"\xef\xbb\xbfa: x"), {"a": "x"})

    def test_anchors(self) -> None:
        """Aliases and merge keys work."""
        self.assertEqual(self.load("a: &x {k: 1}\nb: *x"), {"a": {"k": 1}, "b": {"k": 1}})
        self.assertEqual(
            self.load("a: &x {k: 1, l: 1}\nb: {<<: *x, k: 2}"),
            {"a": {"k": 1, "l": 1}, "b": {"k": 2, "l": 1}},
        )

    def test_merge_of_a_merge(self) -> None:
        """A merge of a merged mapping is not taken for repeated keys."""
        self.assertEqual(
            self.load("a: &x {k: 1}\nb:\n  c: &y {<<: *x, k: 2}\nd: {<<: *y, k: 3}"),
            {"a": {"k": 1}, "b": {"c": {"k": 2}}, "d": {"k": 3}},
        )

    def test_equal_keys_elsewhere(self) -> None:
        """Equal keys in different mappings are accepted."""
        self.assertEqual(
            self.load("a: {k: 1}\nb: {k: 1, c: {k: 2}}"),
            {"a": {"k": 1}, "b": {"k": 1, "c": {"k": 2}}},
        )

    def test_real_loader_untouched(self) -> None:
        """PyYAML's own loader is not changed."""
        self.assertEqual(yaml.safe_load("a: 1:30"), {"a": 90})


class RefusalTests(YAMLCase):
    """Documents that are rejected in one line."""

    def test_missing(self) -> None:
        """A missing file or a folder is reported."""
        self.assertRaises(ConfigError, yaml_loader.load, self.path)
        self.path.mkdir()
        self.assertRaises(ConfigError, yaml_loader.load, self.path)

    def test_unreadable(self) -> None:
        """A file without read permission is reported."""
        self.path.write_text("a: 1")
        self.path.chmod(0)
        if os.geteuid() == 0:  # root may read everything, so another user has to try
            self.path = self.path.resolve()
            os.seteuid(_NOBODY)
            self.addCleanup(os.seteuid, 0)
        self.assertRaises(ConfigError, yaml_loader.load, self.path)

    def test_equal_keys(self) -> None:
        """A repeated key is named, with its line, at any depth."""
        for text, line in (
            ("a: 1\nb: 2\na: 3\n", 3),
            ("a: {k: 1, k: 2}", 1),
            ("x:\n  - y:\n      k: 1\n      k: 1\n", 4),
            ("a: 1\n'a': 2\n", 2),
            ('a: 1\n"\\x61": 2\n', 2),
        ):
            said = self.refusal(text)
            self.assertIn("twice", said)
            self.assertIn(f"line {line}", said)

    def test_syntax(self) -> None:
        """Invalid YAML is rejected with the line."""
        for text in (
            "a: [",
            "a: 1\n b: 2",
            "a: {",
            "\t- x",
            "a: 'x",
            "a: *nobody",
            "a: &x *x",
            "%",
        ):
            self.assertIn("line", self.refusal(text), text)

    def test_bytes(self) -> None:
        """Bytes that are no text are rejected."""
        for raw in (b"\xff\xfe\xff", b"a: \x00", b"a: \xc3", b"\x7fELF\x02\x01", os.urandom(64)):
            self.refusal(b"\xff" + raw)

    def test_not_a_mapping(self) -> None:
        """A document that is no mapping, or has keys that are no text, is rejected."""
        for text in ("", "# nothing", "- a", "text", "1", "null", "1: x", "null: x", "true: x"):
            self.refusal(text)

    def test_several_documents(self) -> None:
        """Several documents in a file are rejected."""
        self.refusal("a: 1\n---\nb: 2\n")

    def test_odd_keys(self) -> None:
        """Unhashable keys are rejected."""
        for text in ("? [a]\n: 1", "? {a: 1}\n: 1", "{[a]: 1}", "a: {? [x] : 1}"):
            self.refusal(text)

    def test_tags(self) -> None:
        """Unknown and unfit tags are rejected, and nothing is constructed for them."""
        for tag in (
            "!!python/object/apply:os.getcwd []",
            "!!python/name:os.system",
            "!mine x",
            "!!int x",
            "!!int ''",
            "!!float x",
            "!!float ''",
            "!!bool x",
            "!!timestamp x",
            "!!null x",
            "!!binary '*'",
            "!!set [x]",
            "!!omap x",
            "!!pairs x",
            "!!map x",
            "!!seq x",
            "!!str [x]",
        ):
            try:
                self.load(f"a: {tag}")
            except ConfigError as error:
                self.assertEqual(len(str(error).splitlines()), 1)

    def test_secrets_without_quotes(self) -> None:
        """A password with a special first character is not quoted; the error asks for quotes."""
        for text in ("!hunter2", "!!hunter2", "!h!hunter2", "*hunter2", "@hunter2", "`hunter2"):
            problem = self.refusal(f"a: 1\npepper: {text}")
            self.assertNotIn("hunter2", problem)
            self.assertIn("line 2: ", problem)
            self.assertIn("in quotes", problem)

    def test_deep(self) -> None:
        """Excessive nesting is rejected."""
        self.refusal("a: " + "[" * 100_000)
        self.refusal("a: " + "[" * 10_000 + "]" * 10_000)

    def test_long_numbers(self) -> None:
        """A number with more digits than Python parses is rejected."""
        self.refusal("a: " + "9" * 10_000)


_scalars = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ("1:30", "<<", "*a", "&a", "!!int", "!!bool x", "!!timestamp x", "? ", "- ", "{", "}", "[", "]")
)
_yaml = st.lists(
    st.sampled_from(
        ("\n", "\n  ", ": ", "a", "b", "- ", "{", "}", "[", "]", ", ", "&x ", "*x", "<<: ", "? ")
    )
    | st.sampled_from(
        ("!!int ", "!!float ", "!!bool ", "!!timestamp ", "!!set ", "!!omap ", "!!null ", "!!map ")
    )
    | _scalars,
    max_size=14,
).map("".join)

_printable = st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" ")


class AnythingTests(YAMLCase):
    """Properties of any file."""

    @settings(max_examples=600)
    @given(_yaml)
    def test_text(self, text: str) -> None:
        """Any text is a mapping or gives a ConfigError of one line."""
        try:
            found = self.load(text)
        except ConfigError as error:
            self.assertEqual(len(str(error).splitlines()), 1, ascii(str(error)))
        else:
            self.assertTrue(all(isinstance(key, str) for key in found))

    @settings(max_examples=200)
    @given(st.binary(max_size=60))
    def test_bytes(self, raw: bytes) -> None:
        """So are any bytes."""
        try:
            self.assertIsInstance(self.load(raw), dict)
        except ConfigError as error:
            self.assertEqual(len(str(error).splitlines()), 1, ascii(str(error)))

    @settings(max_examples=200)
    @given(
        st.dictionaries(
            st.text(_printable, min_size=1, max_size=6),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers(-(10**9), 10**9)
                | st.text(_printable, max_size=10),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(_printable, max_size=4), inner, max_size=3)
                ),
                max_leaves=6,
            ),
        )
    )
    def test_what_was_written(self, mapping: dict[str, Any]) -> None:
        """A mapping written by PyYAML is read back unchanged."""
        self.assertEqual(self.load(yaml.safe_dump(mapping, allow_unicode=True)), mapping)
