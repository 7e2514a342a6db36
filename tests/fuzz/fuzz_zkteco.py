"""ZKTeco 4370: any bytes from a terminal raise only ProtocolError, and nothing grows beyond its stated limit."""

from __future__ import annotations

from device_drivers.errors import ProtocolError
from device_drivers.zkteco.backlog import Cursor
from device_drivers.zkteco.codes import Command
from device_drivers.zkteco.device_clock import pack_time, unpack_time
from device_drivers.zkteco.frame import DatagramDecoder, Frame, StreamDecoder
from device_drivers.zkteco.messages import FreeSizes, bulk_size, option_value, single_template, split_templates
from device_drivers.zkteco.records import decode_live, measure_layout
from device_drivers.zkteco.session import Answer, Session
from device_drivers.zkteco.users import CodePage, split_users

MAX_ANSWER = 4096


def one_input(data: bytes) -> None:
    if not data:
        return
    kind, body = data[0] % 8, data[1:]
    try:
        _decode(kind, body)
    except ProtocolError:
        return


def _decode(kind: int, body: bytes) -> None:
    if kind == 0:
        decoder = StreamDecoder()
        for i in range(0, len(body), 7):
            for frame in decoder.feed(body[i : i + 7]):
                assert StreamDecoder(verify_checksum=False).feed(frame.encode_tcp()) == [frame]
    elif kind == 1:
        _talk(body)
    elif kind == 2:
        count = int.from_bytes(body[:2], "little") - 4
        layout = measure_layout(body[2:], table_bytes=len(body) - 2, count=count)
        assert len(layout.split(body[2:])) <= len(body) // layout.stride
    elif kind == 3:
        for event in decode_live(body):
            assert event.plausible in (True, False)
    elif kind == 4:
        for user in split_users(body[1:], count=body[0] if body else 0):
            user.user(CodePage())
    elif kind == 5:
        assert sum(len(entry.payload) for entry in split_templates(body)) <= len(body)
        single_template(body)
    elif kind == 6:
        FreeSizes.decode(body)
        option_value(body)
        Cursor.decode(body)
        bulk_size(body)
    else:
        when = unpack_time(int.from_bytes(body[:4], "little"))
        assert when is None or unpack_time(pack_time(when)) == when
        DatagramDecoder().feed(body)


def _talk(body: bytes) -> None:
    """Frames without their checksums: a terminal that says anything it likes, well framed."""
    session = Session(Frame.encode)
    session.ask(Command.DATA_RDY, max_answer=MAX_ANSWER)
    commands = (Command.PREPARE_DATA, Command.DATA, Command.ACK_OK, Command.REG_EVENT, Command.ACK_ERROR)
    while len(body) >= 3:
        command, reply_no, length = commands[body[0] % len(commands)], body[1] % 2, body[2]
        payload, body = body[3 : 3 + length], body[3 + length :]
        for event in session.receive(Frame(command, 1, reply_no, payload)):
            if isinstance(event, Answer):
                assert len(event.payload) <= MAX_ANSWER
                session.ask(Command.DATA_RDY, max_answer=MAX_ANSWER)
        while session.next_send() is not None:
            pass
