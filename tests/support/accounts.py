"""The accounts of tests that run the whole service in this process."""

from __future__ import annotations

from synapse_login_module.testing import SERVER_NAME

ALICE = f"@alice:{SERVER_NAME}"
ALICE_PASSWORD = "wonderland-of-alice"
LOCKED = f"@larry:{SERVER_NAME}"
LOCKED_PASSWORD = "locked-out-larry"
DEACTIVATED = f"@dora:{SERVER_NAME}"
DEACTIVATED_PASSWORD = "gone-for-good-dora"
