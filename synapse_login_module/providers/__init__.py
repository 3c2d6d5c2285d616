"""Password providers, as the configuration names them."""

from synapse_login_module.providers.bcrypt import BcryptProvider

__all__ = ["BcryptProvider"]
