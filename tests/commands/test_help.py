"""Tests for the help texts of all commands, and for their page in the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import click
from twisted.trial.unittest import SynchronousTestCase

from synapse_login_module.commands.main import program
from synapse_login_module.commands.program import PROGRAM, Argument, Command
from tests.support import REPOSITORY
from tests.support.commands import invoke

PAGE = REPOSITORY / "docs" / "commands.rst"
WIDTH = 100


def all_commands(
    group: click.Group = program, before: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Walk over all commands and groups below a group, with the words to type."""
    for name, command in group.commands.items():
        yield (*before, name), command
        if isinstance(command, click.Group):
            yield from all_commands(command, (*before, name))


class HelpTests(SynchronousTestCase):
    """``--help`` of every command and group."""

    def setUp(self) -> None:
        self.patch(program, "context_settings", {**program.context_settings})
        program.context_settings["terminal_width"] = WIDTH

    def help(self, *words: str) -> str:
        """Return what ``--help`` prints."""
        done = invoke(*words, "--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""), words)
        return done.stdout

    def test_width(self) -> None:
        """No line is longer than 100 columns."""
        for words in ((), *(words for words, _ in all_commands())):
            for line in self.help(*words).splitlines():
                self.assertLessEqual(len(line), WIDTH, (words, line))

    def test_sentences(self) -> None:
        """Every command says in whole sentences what it does, and the list shows the first."""
        for words, command in all_commands():
            self.assertRegex((command.help or "").rstrip(), r"\.\Z", words)
            shown = command.get_short_help_str(WIDTH)
            self.assertRegex(shown, r"\A[A-Z].*[^.]\.\Z", words)

    def test_parameters(self) -> None:
        """Every option and argument is explained, and every value has a name in capitals."""
        for words, command in all_commands():
            shown = self.help(*words)
            for each in command.params:
                if isinstance(each, Argument):
                    self.assertTrue(each.about, (words, each.name))
                    continue
                assert isinstance(each, click.Option)
                if each.hidden:
                    continue
                self.assertIn(each.opts[-1], shown, words)
                self.assertRegex(each.help or "", r"\A[A-Z](?s:.)*\.\Z", (words, each.name))
                if not each.is_flag:
                    self.assertRegex(each.metavar or "", r"\A[A-Z]+\Z", (words, each.name))

    def test_examples(self) -> None:
        """An example is a command that exists, with options that it has."""
        seen = 0
        for words, command in all_commands():
            for example in command.examples if isinstance(command, Command) else ():
                typed = example.partition(" >")[0].split()
                self.assertEqual(tuple(typed[: len(words)]), words)
                command.make_context(PROGRAM, typed[len(words) :]).close()
                seen += 1
        self.assertGreater(seen, 10)

    def test_sections(self) -> None:
        """The program lists each command once, under a title."""
        said = self.help()
        for name in program.commands:
            self.assertEqual(said.count(f"\n  {name} "), 1, name)
        self.assertNotIn("\nCommands:", said)


class PageTests(SynchronousTestCase):
    """``docs/commands.rst``."""

    def test_every_command(self) -> None:
        """The page has a heading for every command, and none for another."""
        lines = PAGE.read_text("utf-8").splitlines()
        headings = {
            title
            for title, line in pairwise(lines)
            if title and len(line) == len(title) and set(line) <= {"~"}
        }
        names = {" ".join(words) for words, command in all_commands() if not is_group(command)}
        self.assertEqual(headings, names)

    def test_options(self) -> None:
        """The page names every option of every command."""
        page = PAGE.read_text("utf-8")
        for words, command in all_commands():
            for each in command.params:
                if isinstance(each, click.Option) and not each.hidden:
                    self.assertIn(each.opts[-1], page, words)


def is_group(command: click.Command) -> bool:
    """Return whether a command is a group of commands."""
    return isinstance(command, click.Group)
