"""What a part of the service says about itself to an operator."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import Interface

from synapse_login_module.model import Finding


class IDiagnosable(Interface):
    """A password provider or a homeserver that can examine what it needs, for an operator.

    It is optional. A part that provides it may be started or not.
    """

    def diagnose() -> Deferred[list[Finding]]:
        """Try what the part needs, for real: connect, verify certificates, log in, search.

        Nothing is changed anywhere, no attempt of a user is made, and no text of a finding holds a
        secret. The caller has a deadline and cancels the Deferred then, so each step that waits has
        a timeout of its own which is shorter.

        :return: fires with the findings. What does not work is a finding, and no failure.
        """
