"""``synapse-login-module``: what an operator does beside running the server."""

from synapse_login_module.commands.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
