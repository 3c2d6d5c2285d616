"""The base classes of commands: names, help texts, and errors on one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import IO, Any, TypeVar

import click

from synapse_login_module.common.console import escaped
from synapse_login_module.errors import ConfigError, LoginServiceError

PROGRAM = "synapse-login-module"

F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """The failure of a command: exit status 1.

    :param problems: the reasons, one line each.
    """

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def show(self, file: IO[Any] | None = None) -> None:
        """Print each reason on a line that begins with the program's name.

        A reason may hold what a server has answered, which must not reach the terminal as it is.
        """
        for problem in self.problems:
            click.echo(escaped(f"{PROGRAM}: {problem}"), file=file or sys.stderr)


@contextmanager
def about(*files: object) -> Iterator[None]:
    """Turn errors into a :class:`Failure` whose lines begin with the names of the files."""
    try:
        yield
    except BrokenPipeError:
        raise
    except ConfigError as error:
        where = ", ".join(map(str, files))
        raise Failure(*(f"{where}: {each}" for each in error.all())) from error
    except (LoginServiceError, OSError) as error:
        raise Failure(f"{', '.join(map(str, files))}: {problem_of(error)}") from error


def problem_of(error: Exception) -> str:
    """Describe an error on one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


class Argument(click.Argument):
    """A positional argument with a help text.

    :param about: the help text. (click's own ``help`` of arguments is new in 8.5.)
    """

    def __init__(self, *args: Any, about: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.about = about


def argument(name: str, about: str, **kwargs: Any) -> Callable[[F], F]:
    """Add a positional argument to a command.

    :param name: the name of the function's parameter; shown in capitals.
    :param about: its text in ``--help``.
    """
    return click.argument(name, cls=Argument, about=about, **kwargs)


class Command(click.Command):
    """A command whose ``--help`` lists its arguments as well as its options, with examples.

    :param examples: lines to type, without the name of the program.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments, then the options."""
        rows = [
            ((each.name or "").upper(), each.about)
            for each in self.get_params(ctx)
            if isinstance(each, Argument)
        ]
        if rows:
            with formatter.section("Arguments"):
                formatter.write_dl(rows)
        super().format_options(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for each in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{PROGRAM} {each}\n")


class Group(click.Group):
    """A group of commands which suggests the closest name for an unknown one."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A missing command is a usage error. By default, releases of click differ in this.
        super().__init__(*args, **{"no_args_is_help": False, **kwargs})

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; see :class:`click.Group`."""
        name = args[0]
        if name.startswith("-") or ctx.resilient_parsing or self.get_command(ctx, name):
            return super().resolve_command(ctx, args)
        near = " or ".join(self._near(ctx, name))
        raise click.UsageError(
            f"There is no command {name!r}." + (f" Did you mean {near}?" if near else ""), ctx
        )

    def _near(self, ctx: click.Context, name: str) -> list[str]:
        """List the commands of a similar name, here or in the groups of this group."""
        names = self.list_commands(ctx)
        folded = name.lower()
        near = [each for each in names if folded and each.startswith(folded)]
        below = [
            f"{group} {name}"
            for group in names
            if isinstance(found := self.get_command(ctx, group), click.Group)
            and found.get_command(ctx, name)
        ]
        return near or below or get_close_matches(folded, names, 1)


class Program(Group):
    """The group of all commands, in sections.

    It reports this package's errors and the system's on one line.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sections: dict[str, list[str]] = {}

    def add_section(self, title: str, *commands: click.Command) -> None:
        """Add commands, to be listed together under a title in ``--help``."""
        for command in commands:
            self.add_command(command)
            self._sections.setdefault(title, []).append(command.name or "")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, with one line for each command."""
        width = max(len(name) for names in self._sections.values() for name in names)
        limit = formatter.width - width - 6  # an indentation and a gap
        for title, names in self._sections.items():
            rows = [
                (f"{name:{width}}", self.commands[name].get_short_help_str(limit)) for name in names
            ]
            with formatter.section(title):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; see :class:`click.Group`."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                click.echo(err=True)  # behind the ^C
            raise click.exceptions.Exit(130) from None
        except BrokenPipeError:  # click exits silently when the reader of a pipe has gone
            raise
        except (LoginServiceError, OSError) as error:
            raise Failure(problem_of(error)) from error
