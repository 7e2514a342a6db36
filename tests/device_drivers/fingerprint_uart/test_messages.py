"""Images, parameters, slots and transfers as values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.fingerprint_uart.frame import Kind, Packet
from device_drivers.fingerprint_uart.messages import (
    MAX_TRANSFER,
    Parameters,
    Product,
    Transfer,
    data_packets,
    image_of,
    slots_of,
)


@pytest.mark.parametrize(("height", "width"), [(288, 256), (192, 192), (160, 160), (288, 208)])
def test_four_bits_become_the_full_range_high_half_first(height: int, width: int) -> None:
    data = b"\x0f" * (height * width // 2)
    image = image_of(data, None)
    assert (image.shape, image.dtype) == ((height, width), np.uint8)
    assert image[0, :4].tolist() == [0, 255, 0, 255]


@pytest.mark.parametrize(("size", "shape"), [(0, None), (36863, None), (36864, (192, 192)), (10, (0, 0))])
def test_an_image_of_another_size_is_refused(size: int, shape: tuple[int, int] | None) -> None:
    with pytest.raises(ValueError, match="fits no known sensor"):
        image_of(bytes(size), shape)


def test_an_unlisted_sensor_can_be_told() -> None:
    assert image_of(bytes(50), (10, 10)).shape == (10, 10)


def test_parameters_are_read_as_the_manual_lays_them_out() -> None:
    parameters = Parameters.decode(bytes.fromhex("0004 0009 00c8 0003 ffffffff 0002 0006"))
    assert parameters == Parameters(4, 9, 200, 3, 0xFFFFFFFF, 128, 57600)
    assert Parameters.decode(bytes.fromhex("0000 0009 00c8 0003 ffffffff 00ff 0006")).packet_size == 256
    with pytest.raises(ValueError):
        Parameters.decode(bytes(15))


@given(st.binary(max_size=100))
def test_any_product_information_is_read_or_refused(content: bytes) -> None:
    try:
        product = Product.decode(content)
    except ValueError:
        assert len(content) < 46
    else:
        assert product.model.isprintable()


def test_occupied_slots_are_bits_of_the_table() -> None:
    assert slots_of(b"\x05" + bytes(30) + b"\x80", 1) == [256, 258, 511]


@given(st.binary(min_size=1, max_size=1600), st.sampled_from([32, 64, 128, 256]))
def test_data_cut_into_packets_arrives_whole(data: bytes, size: int) -> None:
    transfer = Transfer()
    packets = data_packets(data, packet_size=size, address=0)
    for packet in packets:
        assert not transfer.done
        transfer.take(packet)
    assert transfer.done
    assert bytes(transfer.data) == data


def test_a_transfer_ends_by_size_or_silence_where_the_end_packet_is_missing() -> None:
    known = Transfer(expected=6)
    known.take(Packet(Kind.DATA, b"abc"))
    assert not known.silence()
    known.take(Packet(Kind.DATA, b"def"))
    assert known.done
    unknown = Transfer()
    assert not unknown.silence()
    unknown.take(Packet(Kind.DATA, b"abc"))
    assert unknown.silence()
    assert not unknown.done


def test_a_transfer_without_end_is_refused() -> None:
    transfer = Transfer()
    for _ in range(MAX_TRANSFER // 256):
        transfer.take(Packet(Kind.DATA, bytes(256)))
    with pytest.raises(ValueError, match="without end"):
        transfer.take(Packet(Kind.DATA, bytes(1)))
