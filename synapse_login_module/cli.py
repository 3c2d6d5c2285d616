"""``synapse-login-module``: the operator's command line."""

from synapse_login_module.commands.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
