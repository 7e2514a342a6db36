"""Why a camera shows nothing: one RTSP question, DESCRIBE, with digest or basic authentication (RFC 2326, RFC 7616).

The video library says only that a stream cannot be opened. Asked directly, a camera says whether the name, the
password or the path is wrong. DESCRIBE sets nothing up and starts no picture.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from urllib.parse import unquote, urlsplit

from device_drivers.errors import AuthenticationFailed, DeviceRefused, ProtocolError
from device_drivers.links import StreamLink

PORT = 554
TIMEOUT_S = 5.0
MAX_HEAD = 16 * 1024
_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,]+))')
_ALGORITHMS = {"": "md5", "MD5": "md5", "SHA-256": "sha256"}


async def describe(address: str, *, username: str = "", password: str = "", timeout_s: float = TIMEOUT_S) -> None:
    """Returns if the camera would show this stream. `address` is rtsp://, also with name and password in it.

    Raises AuthenticationFailed, DeviceRefused (no such path), LinkError, ProtocolError; none shows the password.
    """
    parts = urlsplit(address)
    username = username or unquote(parts.username or "")
    password = password or unquote(parts.password or "")
    host, port = parts.hostname or "", parts.port or PORT
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    shown = url.partition("?")[0]
    link = await StreamLink.connect(host, port, timeout_s=timeout_s)
    try:
        status, challenges = await _ask(link, url, sequence=1, authorization="", timeout_s=timeout_s)
        if status == 401 and username:
            answer = authorization(challenges, url=url, username=username, password=password)
            status, _ = await _ask(link, url, sequence=2, authorization=answer, timeout_s=timeout_s)
    finally:
        await link.close()
    if status in (401, 403):
        wanted = "it refuses this user name or password" if username else "it asks for a user name and a password"
        raise AuthenticationFailed(f"{shown}: {wanted}", code=status)
    if status in (404, 454):
        raise DeviceRefused(f"{shown}: the camera has no stream under this path", code=status)
    if not 200 <= status < 300:
        raise DeviceRefused(f"{shown}: the camera answered {status}", code=status)


def authorization(challenges: list[str], *, url: str, username: str, password: str, method: str = "DESCRIBE") -> str:
    """The answer to WWW-Authenticate: digest before basic. Raises ProtocolError for what nobody can answer."""
    for challenge in challenges:
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() != "digest":
            continue
        said = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(rest)}
        algorithm = _ALGORITHMS.get(said.get("algorithm", "").upper())
        if algorithm is None:
            continue
        return _digest(said, algorithm, url=url, username=username, password=password, method=method)
    if any(challenge.lower().startswith("basic") for challenge in challenges):
        return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
    raise ProtocolError("the camera asks for an authentication that is neither digest nor basic")


def _digest(said: dict[str, str], algorithm: str, *, url: str, username: str, password: str, method: str) -> str:
    def hashed(*parts: str) -> str:
        return hashlib.new(algorithm, ":".join(parts).encode(), usedforsecurity=False).hexdigest()

    realm, nonce = said.get("realm", ""), said.get("nonce", "")
    secret, request = hashed(username, realm, password), hashed(method, url)
    fields = {"username": username, "realm": realm, "nonce": nonce, "uri": url}
    plain = {"algorithm": said["algorithm"]} if "algorithm" in said else {}
    if "auth" in re.split(r"[\s,]+", said.get("qop", "")):
        fields["cnonce"] = secrets.token_hex(8)
        plain |= {"qop": "auth", "nc": "00000001"}
        fields["response"] = hashed(secret, nonce, plain["nc"], fields["cnonce"], "auth", request)
    else:
        fields["response"] = hashed(secret, nonce, request)
    if "opaque" in said:
        fields["opaque"] = said["opaque"]
    quoted = [f'{name}="{value}"' for name, value in fields.items()]
    return "Digest " + ", ".join(quoted + [f"{name}={value}" for name, value in plain.items()])


async def _ask(
    link: StreamLink, url: str, *, sequence: int, authorization: str, timeout_s: float
) -> tuple[int, list[str]]:
    lines = [f"DESCRIBE {url} RTSP/1.0", f"CSeq: {sequence}", "Accept: application/sdp"]
    if authorization:
        lines.append(f"Authorization: {authorization}")
    await link.send(("\r\n".join(lines) + "\r\n\r\n").encode())
    head = b""
    while b"\r\n\r\n" not in head:
        if len(head) > MAX_HEAD:
            raise ProtocolError(f"{link.address}: this is no RTSP")
        head += await link.receive(timeout_s=timeout_s)
    return answer(head, address=link.address)


def answer(head: bytes, *, address: str) -> tuple[int, list[str]]:
    """Status and challenges. Raises ProtocolError."""
    first, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    found = re.fullmatch(r"RTSP/\d\.\d (\d{3})(?: .*)?", first, re.ASCII)
    if found is None:
        raise ProtocolError(f"{address}: this is no RTSP")
    fields = (line.partition(":") for line in lines)
    return int(found.group(1)), [value.strip() for name, _, value in fields if name.lower() == "www-authenticate"]
