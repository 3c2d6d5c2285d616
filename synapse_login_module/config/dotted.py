"""Imports what a configuration names by its dotted path."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from synapse_login_module.config.messages import close_to
from synapse_login_module.errors import ConfigError, described

_EXTRAS = {
    "ldaptor": "ldap",
    "phonenumbers": "phone",
    "psycopg": "postgres",
    "psycopg_pool": "postgres",
    "pymysql": "mysql",
}


def find(path: str) -> Any:
    """Import the object of a dotted path.

    :raise ConfigError: with the part of the path that does not exist, and a suggestion.
    """
    names = path.split(".")
    for end in range(len(names), 0, -1):
        module = ".".join(names[:end])
        try:
            found = import_module(module)
        except ModuleNotFoundError as error:
            if not module.startswith(f"{error.name}.") and error.name != module:
                raise _missing(module, error.name) from None
        except Exception as error:  # the module's code may raise anything
            raise ConfigError("", f"cannot import it: {described(error)}") from None
        else:
            return _within(found, module, names[end:])
    raise ConfigError("", f"cannot import it: there is no module {names[0]}")


def _within(found: Any, path: str, names: list[str]) -> Any:
    for name in names:
        try:
            found = getattr(found, name)
        except ModuleNotFoundError as error:
            raise _missing(path, error.name) from None
        except AttributeError:
            known = [*dir(found), *getattr(found, "_MODULES", ())]
            likely = close_to(name, known) or next(
                (each for each in known if each.lower() == name.lower()), None
            )
            meant = f": did you mean {path}.{likely}?" if likely else ""
            problem = f"cannot import it: there is no {name} in {path}{meant}"
            raise ConfigError("", problem) from None
        except Exception as error:
            raise ConfigError("", f"cannot import it: {described(error)}") from None
        path = f"{path}.{name}"
    return found


def _missing(path: str, name: str | None) -> ConfigError:
    library = (name or "").partition(".")[0]
    if path.startswith("synapse_login_module.") and library in _EXTRAS:
        install = f"pip install 'synapse-login-module[{_EXTRAS[library]}]'"
        return ConfigError("", f"{library} is not installed: {install}")
    return ConfigError("", f"cannot import it: {library} is not installed")
