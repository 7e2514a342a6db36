from __future__ import annotations

import re
from hashlib import md5

from hypothesis import given
from hypothesis import strategies as st

from device_drivers.isapi.push import Digest, inbox_maker

SECRET = "secret"


def answer(challenge: str, *, password: str = SECRET, uri: str = "/isapi/x", count: int = 1) -> str:
    """RFC 7616, section 3.4, as a terminal computes it."""

    def h(text: str) -> str:
        return md5(text.encode(), usedforsecurity=False).hexdigest()

    said = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    first, second = h(f"gateway:{said['realm']}:{password}"), h(f"POST:{uri}")
    response = h(f"{first}:{said['nonce']}:{count:08x}:0a4f113b:auth:{second}")
    return (
        f'Digest username="gateway", realm="{said["realm"]}", nonce="{said["nonce"]}", uri="{uri}", qop=auth,'
        f' nc={count:08x}, cnonce="0a4f113b", response="{response}"'
    )


def test_the_right_answer_passes_once() -> None:
    digest = Digest("gateway", SECRET)
    challenge = digest.challenge()
    assert digest.passes(answer(challenge), method="POST", path="/isapi/x")
    assert not digest.passes(answer(challenge), method="POST", path="/isapi/x")  # heard on the line and sent again
    assert digest.passes(answer(challenge, count=2), method="POST", path="/isapi/x")


def test_another_password_path_method_or_challenge_does_not_pass() -> None:
    digest = Digest("gateway", SECRET)
    challenge = digest.challenge()
    assert not digest.passes(answer(challenge, password="guess"), method="POST", path="/isapi/x")
    assert not digest.passes(answer(challenge, uri="/isapi/y"), method="POST", path="/isapi/x")
    assert not digest.passes(answer(challenge), method="PUT", path="/isapi/x")
    assert not digest.passes(answer(Digest("gateway", SECRET).challenge()), method="POST", path="/isapi/x")
    assert digest.passes(answer(challenge), method="POST", path="/isapi/x")  # none of them used it up


def test_challenges_are_bounded() -> None:
    digest = Digest("gateway", SECRET)
    first = digest.challenge()
    for _ in range(1000):
        digest.challenge()
    assert not digest.passes(answer(first), method="POST", path="/isapi/x")


@given(st.text(max_size=300))
def test_any_header_is_a_plain_no(text: str) -> None:
    digest = Digest("gateway", SECRET)
    digest.challenge()
    assert not digest.passes(text, method="POST", path="/isapi/x")
    assert not digest.passes(f"Digest {text}", method="POST", path="/isapi/x")


def test_secrets_are_as_long_as_terminals_take_and_differ_by_terminal() -> None:
    make = inbox_maker(lambda use: md5(use.encode(), usedforsecurity=False).digest() * 2)
    lobby, gate = make("lobby", 80, False), make("gate", 80, False)
    # DS-K1T344MBFWX-E1: urlLen max 128, passwordLen 8 to 16, userNameLen 1 to 32
    assert len(lobby.path) <= 128
    assert 8 <= len(lobby.password) <= 16
    assert lobby.path != gate.path
    assert lobby.password != gate.password
    assert lobby.secret not in repr(lobby)
