"""Sealed bytes open unchanged, in their place, or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from templates_store.envelope import (
    KEY_LEN,
    OVERHEAD,
    Binding,
    bind,
    kek_id_of,
    open_into,
    open_sealed,
    seal,
    subkey,
    unwrap,
    wrap,
)
from templates_store.errors import SealBroken
from templates_store.template import Modality, Purpose, SubjectId, TemplateFormat, TemplateId

KEY = bytes(range(KEY_LEN))
KEK_ID = "00112233445566ff"
BINDING = Binding(
    "acme",
    SubjectId("s-1"),
    TemplateId("t-1"),
    Modality.FACE,
    Purpose.ATTENDANCE,
    TemplateFormat("yunet+sface/1", 128),
    1,
)
OTHERS = [
    replace(BINDING, tenant="acmf"),
    replace(BINDING, subject_id=SubjectId("s-2")),
    replace(BINDING, template_id=TemplateId("t-2")),
    replace(BINDING, modality=Modality.IRIS),
    replace(BINDING, purpose=Purpose.ACCESS),
    replace(BINDING, format=TemplateFormat("yunet+sface/2", 128)),
    replace(BINDING, format=TemplateFormat("yunet+sface/1", 127)),
    replace(BINDING, position=2),
    replace(BINDING, subject_id=SubjectId("s-1t"), template_id=TemplateId("-1")),  # the same letters, cut elsewhere
]


@pytest.mark.parametrize("other", OTHERS)
def test_a_template_does_not_open_in_another_place(other: Binding) -> None:
    sealed = seal(KEY, b"payload", bound_to=BINDING.associated_data())
    with pytest.raises(SealBroken):
        open_sealed(KEY, sealed, bound_to=other.associated_data())


def test_every_field_of_a_binding_is_mutated_above() -> None:
    changed = {name for other in OTHERS for name in BINDING.__slots__ if getattr(other, name) != getattr(BINDING, name)}
    assert changed == set(BINDING.__slots__)


def test_no_flipped_bit_of_a_sealed_template_opens() -> None:
    sealed = seal(KEY, bytes(64), bound_to=b"here")
    for i in range(len(sealed)):
        for bit in range(8):
            broken = bytearray(sealed)
            broken[i] ^= 1 << bit
            with pytest.raises(SealBroken):
                open_sealed(KEY, bytes(broken), bound_to=b"here")


def test_no_shortened_or_lengthened_template_opens() -> None:
    sealed = seal(KEY, bytes(64), bound_to=b"here")
    for wrong in (*(sealed[:n] for n in range(len(sealed))), sealed + b"\0", b"\1" + sealed):
        with pytest.raises(SealBroken):
            open_sealed(KEY, wrong, bound_to=b"here")


def test_every_flipped_byte_of_a_wrapped_key_is_refused() -> None:
    wrapped = wrap(KEY, KEK_ID, bytes(KEY_LEN), tenant="acme", owner="s-1")
    for i in range(len(wrapped)):
        broken = bytearray(wrapped)
        broken[i] ^= 0x40
        with pytest.raises(SealBroken):
            unwrap(KEY, bytes(broken), tenant="acme", owner="s-1")


@pytest.mark.parametrize(("tenant", "owner", "kind"), [("b", "s-1", "dek"), ("a", "s-2", "dek"), ("a", "s-1", "root")])
def test_a_wrapped_key_is_bound_to_its_owner(tenant: str, owner: str, kind: str) -> None:
    wrapped = wrap(KEY, KEK_ID, bytes(KEY_LEN), tenant="a", owner="s-1")
    with pytest.raises(SealBroken):
        unwrap(KEY, wrapped, tenant=tenant, owner=owner, kind=kind)


def test_the_same_template_never_seals_to_the_same_bytes() -> None:
    assert len({seal(KEY, b"payload", bound_to=b"here") for _ in range(64)}) == 64


def test_subkeys_of_different_labels_have_nothing_in_common() -> None:
    assert len({subkey(KEY, label) for label in ("a", "b", "ab", "")}) == 4


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_two_lists_of_fields_never_give_the_same_bytes(one: list[str], other: list[str]) -> None:
    assert (bind("x", *one) == bind("x", *other)) == (one == other)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_one_error(data: bytes) -> None:
    with pytest.raises(SealBroken) as one:
        open_sealed(KEY, data, bound_to=b"here")
    with pytest.raises(SealBroken) as two:
        open_into(KEY, data, bound_to=b"here", target=memoryview(bytearray(max(0, len(data) - OVERHEAD))))
    with pytest.raises(SealBroken) as three:
        unwrap(KEY, data, tenant="a", owner="b")
    assert {str(each.value) for each in (one, two, three)} == {""}


@given(st.binary(max_size=400), st.binary(max_size=50))
def test_what_was_sealed_opens(payload: bytes, place: bytes) -> None:
    assert open_sealed(KEY, seal(KEY, payload, bound_to=place), bound_to=place) == payload


def test_a_wrapped_key_names_its_kek() -> None:
    assert kek_id_of(wrap(KEY, KEK_ID, bytes(KEY_LEN), tenant="a", owner="b")) == KEK_ID
