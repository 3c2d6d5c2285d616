"""How commands are named, explain themselves, and fail."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import IO, Any, TypeVar

import click

from synapse_login_module.errors import LoginServiceError

PROGRAM = "synapse-login-module"

F = TypeVar("F", bound=Callable[..., Any])


class Failure(click.ClickException):
    """A command that cannot be done: exit status 1.

    :param problems: why, a line each.
    """

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def show(self, file: IO[Any] | None = None) -> None:
        """Print each problem on a line that begins with the name of the program."""
        for problem in self.problems:
            click.echo(f"{PROGRAM}: {problem}", file=file or sys.stderr)


@contextmanager
def about(*files: object) -> Iterator[None]:
    """Have what fails name the files that it is about."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (LoginServiceError, OSError) as error:
        raise Failure(f"{', '.join(map(str, files))}: {problem_of(error)}") from error


def problem_of(error: Exception) -> str:
    """What went wrong, on one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


class Argument(click.Argument):
    """A positional argument that is explained.

    :param about: its explanation. (The ``help`` of click's own is new in 8.5.)
    """

    def __init__(self, *args: Any, about: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.about = about


def argument(name: str, about: str, **kwargs: Any) -> Callable[[F], F]:
    """Add a positional argument to a command.

    :param name: of the function's parameter; shown in capitals.
    :param about: what ``--help`` says of it.
    """
    return click.argument(name, cls=Argument, about=about, **kwargs)


class Command(click.Command):
    """A command that explains its arguments as it does its options."""

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


class Group(click.Group):
    """A group of commands that names the closest one when there is none of a name."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Without a command the usage is an error, and no two releases of click agree otherwise.
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
        """The commands that may be meant: by their spelling, or in a group below."""
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
    """All commands. What this package raises on purpose, and the system's errors, end in a line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(130) from None
        except BrokenPipeError:  # click is quiet about who reads no further
            raise
        except (LoginServiceError, OSError) as error:
            raise Failure(problem_of(error)) from error
