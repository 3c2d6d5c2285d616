"""The configuration of a Synapse that delegates authentication, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, PlainValidator

from synapse_login_module.config.files import ReadFile, read_secret
from synapse_login_module.config.settings import HomeserverKeys
from synapse_login_module.config.validation import Duration, FilePath, validate
from synapse_login_module.errors import ConfigError, Mistakes
from synapse_login_module.outbound.http import TLSPolicy
from synapse_login_module.outbound.tls import read_authorities
from synapse_login_module.outbound.url import checked_url

_LONGEST_TIMEOUT = 20_000
"""In milliseconds: below the half minute for which a deletion is leased, so that no other server
carries it out meanwhile."""


def _processes(given: object) -> bool | tuple[str, ...]:
    if isinstance(given, bool):
        return given
    if not isinstance(given, list) or not given or not all(isinstance(x, str) for x in given):
        raise ValueError("write true, false, or a list of the URLs of all Synapse processes")
    return tuple(given)


class _Keys(HomeserverKeys):
    url: str
    secret_file: FilePath
    ca_file: FilePath | None = None
    timeout: Annotated[Duration, Field(gt=0, le=_LONGEST_TIMEOUT)] = 5_000
    connections: Annotated[int, Field(ge=1, le=10_000)] = 64
    forget_tokens: Annotated[bool | tuple[str, ...], PlainValidator(_processes)] = False


@dataclass(frozen=True)
class SynapseConfig:
    """The checked configuration of :class:`~.synapse.SynapseHomeserver`.

    :param keys: the keys of the configuration.
    :param url: the URL that calls go to, without a slash at its end.
    :param secret: what both servers call each other with.
    :param forget_tokens: the URLs of the processes that tokens are forgotten at.
    :param tls: verifies Synapse's certificate.
    """

    keys: _Keys
    url: str
    secret: str = field(repr=False)
    forget_tokens: Sequence[str]
    tls: TLSPolicy

    @property
    def not_tried(self) -> Sequence[str]:
        """Synapse, which was not connected to; see
        :class:`~synapse_login_module.plugin.IPluginClass`.
        """
        return [
            f"the homeserver at {url}" for url in dict.fromkeys((self.url, *self.forget_tokens))
        ]


def parse(config: Mapping[str, Any], folder: Path) -> SynapseConfig:
    """Check a configuration.

    :param folder: the folder that relative paths start from.
    :raise ConfigError: for all mistakes together.
    """
    keys = validate(_Keys, config)
    mistakes = Mistakes()
    url, secret, tls = "", "", TLSPolicy()
    with mistakes.gathered():
        url = _base_url("url", keys.url)
    forget_tokens = [url] if keys.forget_tokens is True else []
    if not isinstance(keys.forget_tokens, bool):
        for index, each in enumerate(keys.forget_tokens):
            with mistakes.gathered():
                forget_tokens.append(_base_url(f"forget_tokens.{index}", each))
        if len(set(forget_tokens)) < len(forget_tokens):
            mistakes.add("forget_tokens", "the same URL is listed twice")
    with mistakes.gathered():
        secret = ReadFile.load("secret_file", folder / keys.secret_file, _read_secret).value
    if keys.ca_file is not None:
        with mistakes.gathered():
            authorities = ReadFile.load("ca_file", folder / keys.ca_file, read_authorities).value
            tls = TLSPolicy(authorities)
    mistakes.raise_any()
    return SynapseConfig(keys, url, secret, forget_tokens, tls)


def _base_url(path: str, url: str) -> str:
    checked_url(path, url, "secret_file")
    if urlsplit(url).query or "?" in url:
        raise ConfigError(path, "a URL without ?")
    return url.rstrip("/")


def _read_secret(path: Path) -> str:
    """Read the secret: the first line, without spaces around it."""
    secret = read_secret(path).partition("\n")[0].strip()
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ConfigError("", "its first line is not a secret of ASCII text without spaces")
    return secret
