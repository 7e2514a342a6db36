from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.fuzz_zkteco import one_input


@given(st.integers(0, 7), st.binary(max_size=500))
def test_any_bytes_from_a_terminal_raise_only_declared_errors(kind: int, body: bytes) -> None:
    one_input(bytes((kind,)) + body)
