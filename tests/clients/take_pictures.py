"""Takes the pictures of ``docs/pages.rst``: ``python -m tests.clients.take_pictures [FOLDER]``.

Not a test: it needs Pillow, Chromium and what drives it (``tests.clients.test_browser``). With
``ALL=1`` in the environment it takes further states too, for those who change the style.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, cast

from PIL import Image
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.internet.utils import getProcessValue

from synapse_login_module.web.site import LoginSite
from tests.clients.test_browser import FOLDER, chromium
from tests.support import REPOSITORY
from tests.support.account_rig import AccountRig
from tests.support.accounts import ALICE, ALICE_PASSWORD

HOUR = 3600
SESSIONS = (
    ("QBLZTNFVRE", "Element Desktop on Linux", 400 * 24 * HOUR, 3 * 24 * HOUR),
    ("KDWQMHSAZV", "FluffyChat on Android", 75 * 24 * HOUR, 2 * HOUR),
    ("XJPAYURDOC", "Firefox at the library", 9 * 24 * HOUR, 9 * 24 * HOUR),
)
"""Device, name, and how many seconds ago it signed in and was refreshed."""


def shrink(picture: Path) -> None:
    """Store a picture with few colours, in a third of the bytes."""
    with Image.open(picture) as taken:
        few = taken.convert("RGB").quantize(96, dither=Image.Dither.NONE)
    few.save(picture, optimize=True)


async def take(reactor: Any, folder: str) -> None:
    """Serve the pages from this process, and have the pictures taken."""
    rig = AccountRig()
    now, begun = time.time(), {}
    events = [(-login, device, name) for device, name, login, _ in SESSIONS]
    events += [(-refresh, device, "") for device, _, login, refresh in SESSIONS if refresh < login]
    for at, device, name in sorted(events):
        rig.clock.advance(now + at - rig.clock.seconds())
        if name:
            begun[device] = await rig.issue(ALICE, device, name)
        else:
            presented = await rig.store.present(begun[device].tokens.refresh_token)
            await rig.store.refresh(presented, None, False)
    rig.clock.advance(now - rig.clock.seconds())
    port = reactor.listenTCP(0, LoginSite(rig.root, reactor), interface="127.0.0.1")
    base = f"http://127.0.0.1:{port.getHost().port}"
    command = [str(FOLDER / "pictures.mjs"), folder, base, "alice", ALICE_PASSWORD]
    status = await getProcessValue(
        "/usr/bin/env", ["node", *command], {**os.environ, "CHROMIUM": chromium()}
    )
    await port.stopListening()
    for picture in Path(folder).glob("pages-*.png"):
        shrink(picture)
    sys.exit(status)


def main(reactor: Any, folder: str = str(REPOSITORY / "docs")) -> Deferred[None]:
    """Take the pictures into a folder."""
    return Deferred.fromCoroutine(take(reactor, folder))


if __name__ == "__main__":
    react(main, sys.argv[1:], cast(Any, global_reactor))
