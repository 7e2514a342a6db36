from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.errors import ProtocolError
from device_drivers.zkteco.codes import Command
from device_drivers.zkteco.frame import Frame
from device_drivers.zkteco.session import Answer, LiveEvent, Session


def asking(command: Command = Command.DATA_RDY, *, max_answer: int = 1000) -> Session:
    session = Session(Frame.encode)
    session.ask(command, b"", max_answer=max_answer)
    assert session.next_send() is not None
    return session


def announcement(size: int) -> Frame:
    return Frame(Command.PREPARE_DATA, 7, 0, size.to_bytes(4, "little") + bytes(4))


def test_numbers_requests_from_zero_and_keeps_the_session_of_the_connect_reply() -> None:
    session = asking(Command.CONNECT)
    assert session.receive(Frame(Command.ACK_OK, 0x5A5A, 0)) == [Answer(Command.ACK_OK, b"")]
    session.ask(Command.GET_TIME)
    sent = Frame.decode(session.next_send() or b"")
    assert (sent.session, sent.reply_no) == (0x5A5A, 1)
    assert session.next_send() is None


def test_puts_announced_data_together() -> None:
    session = asking()
    frames = [announcement(5), Frame(Command.DATA, 7, 0, b"abc"), Frame(Command.DATA, 7, 0, b"de")]
    assert [session.receive(frame) for frame in frames] == [[], [], []]
    assert session.receive(Frame(Command.ACK_OK, 7, 0)) == [Answer(Command.DATA, b"abcde")]


def test_takes_data_without_an_announcement_as_the_whole_answer() -> None:
    assert asking().receive(Frame(Command.DATA, 7, 0, b"all")) == [Answer(Command.DATA, b"all")]


def test_a_live_event_in_the_middle_of_an_answer_is_kept_apart() -> None:
    session = asking()
    session.receive(announcement(2))
    assert session.receive(Frame(Command.REG_EVENT, 1, 0, b"x")) == [LiveEvent(1, b"x")]
    session.receive(Frame(Command.DATA, 7, 0, b"ab"))
    assert session.receive(Frame(Command.ACK_OK, 7, 0)) == [Answer(Command.DATA, b"ab")]


def test_a_truncated_answer_raises() -> None:
    session = asking()
    session.receive(announcement(5))
    session.receive(Frame(Command.DATA, 7, 0, b"abc"))
    with pytest.raises(ProtocolError, match="5 bytes were announced and 3 came"):
        session.receive(Frame(Command.ACK_OK, 7, 0))


def test_more_data_than_announced_raises() -> None:
    session = asking()
    session.receive(announcement(2))
    with pytest.raises(ProtocolError, match="more came"):
        session.receive(Frame(Command.DATA, 7, 0, b"abc"))


def test_an_announcement_beyond_what_was_asked_for_raises() -> None:
    with pytest.raises(ProtocolError, match="allowed are 1000"):
        asking().receive(announcement(1001))


def test_a_straggler_is_dropped_and_counted() -> None:
    session = asking()
    session.abandon()
    session.ask(Command.GET_TIME)
    assert session.receive(Frame(Command.ACK_OK, 7, 0, b"late")) == []
    assert session.stray_frames == 1
    assert session.receive(Frame(Command.ACK_OK, 7, 1, b"time")) == [Answer(Command.ACK_OK, b"time")]


def test_requests_are_never_pipelined() -> None:
    session = asking()
    with pytest.raises(ValueError, match="unanswered"):
        session.ask(Command.GET_TIME)


def test_acknowledges_a_live_event_with_reply_number_zero() -> None:
    session = Session(Frame.encode)
    session.acknowledge()
    assert Frame.decode(session.next_send() or b"") == Frame(Command.ACK_OK, 0, 0)


FRAMES = st.builds(
    Frame,
    command=st.sampled_from([500, 1500, 1501, 2000, 2001, 2005, 0xFFFF, 3]),
    session=st.integers(0, 3),
    reply_no=st.integers(0, 2),
    payload=st.binary(max_size=40),
)


@given(st.lists(FRAMES, max_size=30))
def test_any_frames_raise_only_protocol_errors_and_keep_no_more_than_was_allowed(frames: list[Frame]) -> None:
    session = asking(max_answer=64)
    try:
        for frame in frames:
            for event in session.receive(frame):
                if isinstance(event, Answer):
                    assert len(event.payload) <= 64
                    session.ask(Command.GET_TIME, max_answer=64)
    except ProtocolError:
        pass
