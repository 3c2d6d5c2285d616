"""Registers ``twistd synapse-login`` with twistd."""

from twisted.application.service import ServiceMaker

synapse_login = ServiceMaker(
    "synapse-login",
    "synapse_login_module.tap",
    "Login and token refresh for Matrix homeservers",
    "synapse-login",
)
