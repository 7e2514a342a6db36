"""Where one terminal pushes to, and how it shows that it is that terminal.

A path nobody can guess, the address we reach it at, and a digest where its firmware offers one. No I/O: headers and
addresses come in.

Source: "ISAPI (Access Control on Person)", HttpHostNotification (`httpAuthenticationMethod` MD5digest or none) and
HttpHostNotificationCap; DS-K1T344MBFWX-E1 tells of URLs up to 128 characters, user names of 1 to 32, passwords of 8 to
16. RFC 7616 for the digest, with MD5 because terminals know no other.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import token_hex
from urllib.parse import urlsplit

PREFIX = "/isapi/"
USERNAME = "gateway"
REALM = "terminals"
SECRET_DIGITS = 32  # of the path
PASSWORD_DIGITS = 16  # as many as terminals take
MAX_NONCES = 64
PAIR = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]*))')


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


class Digest:
    """One terminal's challenges and its answers to them; an answer counts once."""

    def __init__(self, username: str, password: str) -> None:
        self._username = username
        self._secret = _md5(f"{username}:{REALM}:{password}")
        self._nonces: OrderedDict[str, int] = OrderedDict()  # -> highest count answered

    def challenge(self) -> str:
        nonce = token_hex(16)
        self._nonces[nonce] = 0
        if len(self._nonces) > MAX_NONCES:
            self._nonces.popitem(last=False)
        return f'Digest realm="{REALM}", qop="auth", algorithm=MD5, nonce="{nonce}"'

    def passes(self, authorization: str, *, method: str, path: str) -> bool:
        if authorization[:7].lower() != "digest " or len(authorization) > 2048:
            return False
        said = {key: quoted or plain for key, quoted, plain in PAIR.findall(authorization[7:])}
        nonce, uri, qop = said.get("nonce", ""), said.get("uri", ""), said.get("qop", "")
        count = int(said["nc"], 16) if qop and re.fullmatch(r"[0-9a-fA-F]{8}", said.get("nc", "")) else 1
        if said.get("username") != self._username or urlsplit(uri).path != path:
            return False
        if nonce not in self._nonces or count <= self._nonces[nonce]:
            return False
        middle = [nonce, said.get("nc", ""), said.get("cnonce", ""), qop] if qop else [nonce]
        expected = _md5(":".join([self._secret, *middle, _md5(f"{method}:{uri}")]))
        if not hmac.compare_digest(expected, said.get("response", "").lower().encode("ascii", "replace").decode()):
            return False
        self._nonces[nonce] = count
        return True


@dataclass(slots=True)
class Inbox:
    """`secret` is stable, so that a terminal keeps pushing to the same path after we restarted."""

    secret: str = field(repr=False)
    password: str = field(repr=False)
    port: int
    tls: bool = False
    asks_digest: bool = False  # from the moment the terminal was told the password
    digest: Digest = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.digest = Digest(USERNAME, self.password)

    @property
    def path(self) -> str:
        return f"{PREFIX}{self.secret}"


def inbox_maker(derive: Callable[[str], bytes]) -> Callable[[str, int, bool], Inbox]:
    """Secrets of a terminal by its name, derived from a key of the gateway."""

    def made(name: str, port: int, tls: bool) -> Inbox:
        return Inbox(
            derive(f"push path {name}").hex()[:SECRET_DIGITS],
            derive(f"push password {name}").hex()[:PASSWORD_DIGITS],
            port,
            tls,
        )

    return made
