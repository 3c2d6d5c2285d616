"""Imported into the Synapse of a test: every outcome has its line in the log.

Elsewhere a network's lines of one kind are bounded, and all clients of these tests are of one. The
bound has tests of its own.
"""

from __future__ import annotations

from synapse_login_module.common import repeats

repeats.OF_ONE = repeats.OF_ALL = 1_000_000
