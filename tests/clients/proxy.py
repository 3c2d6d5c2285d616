"""Runs reverse proxies with the configurations of ``contrib/``, on free ports."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.support import REPOSITORY
from tests.support.ports import free_port, listens
from tests.support.process import Process

CONTRIB = REPOSITORY / "contrib"


class Proxy:
    """A reverse proxy in a folder of its own. It is not started yet.

    :param port: the loopback port to listen on; by default a free one.
    :cvar program: the name of its program, on the path or in ``/usr/sbin``.
    :cvar lingers: whether it reads the rest of a rejected body, so that the client always gets the
        response.
    :ivar url: its URL.
    """

    program: str
    lingers = True

    def __init__(self, port: int | None = None) -> None:
        found = shutil.which(self.program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if found is None:
            raise SkipTest(f"{self.program} is not installed")
        self._program = found
        self._folder = Path(tempfile.mkdtemp(prefix=f"login-{self.program}-"))
        self._port = port or free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process = Process(self._prepare(), self._folder / "output.log", folder=self._folder)

    async def start(self) -> None:
        """Start the proxy and wait until it accepts connections."""
        await self._process.start(lambda: listens(self._port))

    def remove(self) -> None:
        """Stop the proxy and delete its folder."""
        self._process.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def logs(self) -> str:
        """Return its log and output."""
        return "".join(
            path.read_text("utf-8", "replace") for path in sorted(self._folder.rglob("*.log"))
        )

    def _prepare(self) -> Sequence[str]:
        """Write the configuration; return the command that runs the proxy."""
        raise NotImplementedError

    def _write(self, name: str, text: str) -> str:
        path = self._folder / name
        path.write_text(text, "utf-8")
        return str(path)

    def _ship(self, name: str, replacements: Mapping[str, str]) -> str:
        """Copy a file of ``contrib/`` with replacements; return its new path."""
        source = CONTRIB / name
        text = source.read_text("utf-8")
        for old, new in replacements.items():
            if old not in text:
                raise AssertionError(f"{name} does not have {old!r}")
            text = text.replace(old, new)
        return self._write(source.name, text)


class Nginx(Proxy):
    """nginx with ``contrib/nginx``, in front of a homeserver or of the standalone server.

    :param module_port: the port of the module or of the standalone server.
    :param synapse_port: the port of Synapse itself; ``None`` for the standalone server.
    :param port: the port to listen on; by default a free one.
    :cvar paths_file: the file that sends paths to the module, without its suffix.
    """

    program = "nginx"
    paths_file = "synapse-login"

    def __init__(self, module_port: int, synapse_port: int | None, port: int | None = None) -> None:
        self._upstreams = module_port, synapse_port
        super().__init__(port)

    def _prepare(self) -> Sequence[str]:
        module_port, synapse_port = self._upstreams
        if synapse_port is None:
            self._ship("nginx/standalone.conf", {"127.0.0.1:8008": f"127.0.0.1:{module_port}"})
            server = f"server {{ listen 127.0.0.1:{self._port}; include standalone.conf; }}"
        else:
            upstream = {"127.0.0.1:8009": f"127.0.0.1:{module_port}"}
            self._ship(f"nginx/{self.paths_file}.conf", upstream)
            self._ship(
                "nginx/homeserver.conf",
                {
                    "listen 80;": f"listen 127.0.0.1:{self._port};",
                    "listen [::]:80;": "",
                    "include synapse-login.conf;": f"include {self.paths_file}.conf;",
                    "/var/log/nginx/": f"{self._folder}/",
                    "http://127.0.0.1:8008": f"http://127.0.0.1:{synapse_port}",
                },
            )
            server = "include homeserver.conf;"
        temporary = "".join(
            f"{kind}_temp_path {self._folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        main = self._write(
            "nginx.conf",
            # As root, nginx's workers run as another user, who may not enter the folder.
            f"{'user root;' if os.geteuid() == 0 else ''}\n"
            f"daemon off;\nworker_processes 1;\npid {self._folder}/nginx.pid;\n"
            "error_log stderr;\n"
            "events {}\n"
            f"http {{\n{temporary}access_log {self._folder}/other.log;\n{server}\n}}\n",
        )
        return [self._program, "-p", str(self._folder), "-e", "stderr", "-c", main]


class HAProxy(Proxy):
    """HAProxy with ``contrib/haproxy``; see :class:`Nginx`."""

    program = "haproxy"
    paths_file = "synapse-login"
    lingers = False

    def __init__(self, module_port: int, synapse_port: int | None) -> None:
        self._upstreams = module_port, synapse_port
        super().__init__()

    def _prepare(self) -> Sequence[str]:
        module_port, synapse_port = self._upstreams
        bind = {"bind :80\n": f"bind 127.0.0.1:{self._port}\n"}
        if synapse_port is None:
            name, ports = "standalone", {"127.0.0.1:8008\n": f"127.0.0.1:{module_port}\n"}
        else:
            name = self.paths_file
            ports = {
                "127.0.0.1:8009\n": f"127.0.0.1:{module_port}\n",
                "127.0.0.1:8008\n": f"127.0.0.1:{synapse_port}\n",
            }
        shipped = self._ship(f"haproxy/{name}.cfg", {**bind, **ports})
        base = self._write(
            "haproxy.cfg",
            "global\n    log stdout format raw local0\n"
            "defaults\n    log global\n    timeout connect 5s\n"
            "    timeout client 60s\n    timeout server 60s\n",
        )
        return [self._program, "-db", "-f", base, "-f", shipped]


class DelegatedNginx(Nginx):
    """nginx with ``delegated.conf``, in front of a login service and of Synapse."""

    paths_file = "delegated"


class DelegatedHAProxy(HAProxy):
    """HAProxy with ``delegated.cfg``, in front of a login service and of Synapse."""

    paths_file = "delegated"


class DelegatedCaddy(Proxy):
    """Caddy with ``delegated.Caddyfile``, in front of a login service and of Synapse."""

    program = "caddy"

    def __init__(self, module_port: int, synapse_port: int) -> None:
        self._upstreams = module_port, synapse_port
        super().__init__()

    def _prepare(self) -> Sequence[str]:
        module_port, synapse_port = self._upstreams
        replacements = {
            "example.com {": f"http://127.0.0.1:{self._port} {{",
            "127.0.0.1:8009": f"127.0.0.1:{module_port}",
            "127.0.0.1:8008": f"127.0.0.1:{synapse_port}",
        }
        shipped = Path(self._ship("caddy/delegated.Caddyfile", replacements))
        # Options come first, and it has no port for administration.
        options = f"{{\nadmin off\nstorage file_system {self._folder}/storage\n}}\n"
        main = self._write("Caddyfile", options + shipped.read_text("utf-8"))
        return [self._program, "run", "--config", main, "--adapter", "caddyfile"]
