from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from email.utils import parsedate_to_datetime
from itertools import pairwise

import pytest

from device_drivers.adms.link import Hooks
from device_drivers.adms.messages import PushedPhoto
from device_drivers.adms.server import AdmsServer
from device_drivers.catalog import make
from device_drivers.devices import DeviceConfig, DeviceTemplate, DeviceUser
from device_drivers.errors import LinkTimeout
from device_drivers.events import DeviceEvent, DoorEvent, Punch
from tests.device_drivers.adms.site import Recorder, client, config, running
from tests.shared_data import shared

LINE = b"1\t2026-01-31 08:05:44\t0\t15\t0\t0\t0\t0\t0\t0\t\n"


@pytest.mark.parametrize("slash", ["", "/"])
async def test_trap_17_every_service_answers_with_and_without_a_slash(slash: str) -> None:
    server, record = AdmsServer(), Recorder()
    async with running(server.terminal(config()), record), client(server) as http:
        expected = {
            ("GET", "cdata", "&options=all&pushver=2.4.1"): b"GET OPTION FROM: A1",
            ("POST", "cdata", "&table=ATTLOG&Stamp=9999"): b"OK: 1",
            ("GET", "getrequest", ""): b"OK",
            ("POST", "devicecmd", ""): b"OK",
            ("GET", "ping", ""): b"OK",
            ("POST", "registry", ""): b"RegistryCode=",
            ("GET", "push", ""): b"ServerVersion=",
            ("POST", "push", ""): b"ServerVersion=",
            ("POST", "querydata", "&tablename=user&type=tabledata&cmdid=1"): b"user=1",
            ("POST", "fdata", ""): b"OK: 1",
        }
        for (method, service, query), start in expected.items():
            body = LINE if method == "POST" else None
            answer = await http.request(method, f"/iclock/{service}{slash}?SN=A1{query}", content=body)
            assert (answer.status_code, answer.content[: len(start)]) == (200, start), service


async def test_trap_14_ok_is_said_after_the_commit_and_not_before() -> None:
    server, record = AdmsServer(), Recorder(gate=asyncio.Event())
    async with running(server.terminal(config()), record), client(server) as http:
        post = asyncio.create_task(http.post("/iclock/cdata?SN=A1&table=ATTLOG&Stamp=9999", content=LINE * 3))
        async with asyncio.timeout(5):
            await record.entered.wait()
        assert not post.done()
        assert record.gate is not None
        record.gate.set()
        answer = await post
        assert answer.text == "OK: 3"
        assert len(record.events) == 3
        assert json.loads(record.cursor or b"")["ATTLOG"] == "9999"


async def test_trap_14_a_failed_commit_answers_500_and_ends_the_driver_with_that_error() -> None:
    server, record = AdmsServer(), Recorder(fails=OSError("disk full"))
    async with running(server.terminal(config()), record) as task, client(server) as http:
        answer = await http.post("/iclock/cdata?SN=A1&table=ATTLOG&Stamp=9999", content=LINE)
        assert answer.status_code == 500
        with pytest.raises(OSError, match="disk full"):
            await asyncio.wait_for(task, 5)
        greeting = await http.get("/iclock/cdata?SN=A1&options=all")
        assert "ATTLOGStamp=0\n" in greeting.text  # the stamp did not move


async def test_trap_13_the_stamp_is_advisory_and_repeats_are_passed_on() -> None:
    server, record = AdmsServer(), Recorder()
    async with running(server.terminal(config()), record), client(server) as http:
        for _ in range(2):
            await http.post("/iclock/cdata?SN=A1&table=ATTLOG&Stamp=9999", content=LINE)
    first, second = record.events
    assert first == second  # the flow's dedupe decides, by what the device said


async def test_trap_15_confirmations_and_answers_come_on_their_own() -> None:
    server, record = AdmsServer(), Recorder()
    terminal = server.terminal(config())
    async with running(terminal, record), client(server) as http:
        asked = asyncio.create_task(terminal.users())
        await asyncio.sleep(0)
        text = (await http.get("/iclock/getrequest?SN=A1")).text
        assert text.endswith(":DATA QUERY USERINFO\n")
        number = text.split(":")[1]
        await http.post("/iclock/devicecmd?SN=A1", content=f"ID={number}&Return=0&CMD=DATA\n")
        await http.post(
            "/iclock/cdata?SN=A1&table=OPERLOG&Stamp=9999", content="USER PIN=7\tName=王\tPri=0\n".encode("gb2312")
        )
        [user] = await asked
        assert (user.user_id, user.name) == ("7", "王")


async def test_trap_15_a_device_that_fetches_a_file_gets_a_plain_no() -> None:
    server = AdmsServer()
    async with running(server.terminal(config()), Recorder()), client(server) as http:
        answer = await http.get("/iclock/FileName=options.cfg?SN=A1")
        assert answer.status_code == 404
        assert server.counters["files_asked_for"] == 1


async def test_trap_16_the_registry_token_is_not_demanded() -> None:
    server, record = AdmsServer(), Recorder()
    async with running(server.terminal(config()), record), client(server) as http:
        registered = await http.post("/iclock/registry?SN=A1", content=b"DeviceType=acc,~DeviceName=F20/M")
        code = registered.text.removeprefix("RegistryCode=")
        assert len(code) <= 32
        for cookie in ("token=9d41643bfba01fe8b49143c21defc20a", "token=", ""):
            answer = await http.post("/iclock/push?SN=A1", headers={"cookie": cookie})
            assert f"SessionID={code}" in answer.text
        line = (
            b"time=2017-01-10 11:49:32\tpin=0\tcardno=0\teventaddr=1\tevent=27\tinoutstatus=1\tverifytype=0\tindex=21"
        )
        assert (await http.post("/iclock/cdata?SN=A1&table=rtlog", content=line)).text == "OK"
        assert len(record.events) == 1


async def test_an_unknown_terminal_waits_for_a_person_and_loses_nothing() -> None:
    server, record = AdmsServer(), Recorder()
    async with client(server, source="192.0.2.77") as http:
        refused = await http.post("/iclock/cdata?SN=NEW1&table=ATTLOG&Stamp=9999", content=LINE)
        assert refused.status_code == 403
        [pending] = server.gate.pending()
        assert (pending.serial, pending.address) == ("NEW1", "192.0.2.77")
        async with running(server.terminal(config("NEW1")), record):
            accepted = await http.post("/iclock/cdata?SN=NEW1&table=ATTLOG&Stamp=9999", content=LINE)
            assert accepted.text == "OK: 1"
        assert server.gate.pending() == []
        server.forget("NEW1")
        assert (await http.get("/iclock/ping?SN=NEW1")).status_code == 403


async def test_a_known_terminal_without_a_driver_is_told_to_come_back() -> None:
    server = AdmsServer()
    server.terminal(config())
    async with client(server) as http:
        answer = await http.post("/iclock/cdata?SN=A1&table=ATTLOG&Stamp=9999", content=LINE)
    assert answer.status_code == 503


async def test_a_pinned_terminal_is_refused_from_elsewhere() -> None:
    server = AdmsServer()
    async with running(server.terminal(config(addresses=["192.0.2.0/24"])), Recorder()):
        async with client(server, source="192.0.2.5") as http:
            assert (await http.get("/iclock/ping?SN=A1")).status_code == 200
        async with client(server, source="198.51.100.5") as http:
            assert (await http.get("/iclock/ping?SN=A1")).status_code == 403


async def test_the_answer_sets_the_devices_clock() -> None:
    server = AdmsServer()
    async with running(server.terminal(config()), Recorder()), client(server) as http:
        answer = await http.get("/iclock/cdata?SN=A1&options=all&pushver=2.4.1")
    assert parsedate_to_datetime(answer.headers["date"]).utcoffset() is not None
    assert "TimeZone=8\n" in answer.text


async def test_photos_pushed_unasked_are_dropped_and_counted() -> None:
    server = AdmsServer()
    terminal = server.terminal(config())
    content = base64.b64encode(b"\xff\xd8picture")
    async with running(terminal, Recorder()), client(server) as http:
        line = b"BIOPHOTO PIN=12\tFileName=12.jpg\tType=9\tSize=4\tContent=" + content + b"\n"
        assert (await http.post("/iclock/cdata?SN=A1&table=BIOPHOTO", content=line * 2)).text == "OK: 2"
        line = b"userpic pin=1\tfilename=1.jpg\tsize=4\tcontent=" + content
        answer = await http.post("/iclock/cdata?SN=A1&table=tabledata&tablename=userpic&count=1", content=line)
        assert answer.text == "userpic=1"
        snapshot = b"PIN=20260619-1.jpg\nSN=A1\nsize=3\nCMD=uploadphoto\0\xff\xd8\xff\n\n"
        assert (await http.post("/iclock/cdata?SN=A1&table=ATTPHOTO&Stamp=9999", content=snapshot)).text == "OK: 1"
    assert terminal.counters["photos_dropped"] == 4


async def test_a_capture_hook_gets_the_picture_in_memory() -> None:
    seen: list[PushedPhoto] = []

    async def capture(photo: PushedPhoto) -> bool:
        seen.append(photo)
        return True

    wanted = ["A1"]
    server = AdmsServer(hooks=Hooks(photo=capture, wants_photo=wanted.__contains__))
    terminal = server.terminal(config())
    line = b"BIOPHOTO PIN=12\tFileName=12.jpg\tType=9\tContent=" + base64.b64encode(b"\xff\xd8picture")
    async with running(terminal, Recorder()), client(server) as http:
        await http.post("/iclock/cdata?SN=A1&table=BIOPHOTO", content=line)
    [photo] = seen
    assert (photo.name, photo.jpeg) == ("12", b"\xff\xd8picture")
    assert (terminal.counters["photos_captured"], terminal.counters.get("photos_dropped")) == (1, None)
    wanted.clear()
    async with running(terminal, Recorder()), client(server) as http:
        await http.post("/iclock/cdata?SN=A1&table=BIOPHOTO", content=line)
    assert len(seen) == 1
    assert terminal.counters["photos_dropped"] == 1


async def test_templates_pushed_unasked_are_dropped_without_a_hook() -> None:
    server = AdmsServer()
    terminal = server.terminal(config())
    line = b"BIODATA Pin=1\tNo=0\tIndex=0\tType=9\tMajorVer=39\tMinorVer=3\tFormat=0\tTmp=QUJD"
    async with running(terminal, Recorder()), client(server) as http:
        await http.post("/iclock/cdata?SN=A1&table=BIODATA&Stamp=9999", content=line)
    assert terminal.counters["templates_dropped"] == 1


async def test_hooks_get_what_is_enrolled_at_the_terminal() -> None:
    seen: list[object] = []

    async def keep(serial: str, items: Sequence[object]) -> None:
        seen.extend([serial, *items])

    server = AdmsServer(hooks=Hooks(template=keep, user=keep))
    terminal = server.terminal(config())
    body = b"USER PIN=7\tName=Ann\tPri=0\nFP PIN=7\tFID=6\tValid=1\tTMP=QUJD\n"
    async with running(terminal, Recorder()), client(server) as http:
        await http.post("/iclock/cdata?SN=A1&table=OPERLOG&Stamp=9999", content=body)
    assert seen == [
        "A1", DeviceUser("7", name="Ann"), "A1", DeviceTemplate("7", "fingerprint", 6, "zk-finger-10", b"ABC"),
    ]  # fmt: skip
    assert "templates_dropped" not in terminal.counters


async def test_mixed_operlog_lines_all_find_their_place() -> None:
    server, record = AdmsServer(), Recorder()
    terminal = server.terminal(config())
    body = (
        b"OPLOG\t9\t1\t2002\t2026-06-19 12:00:00\nUSER PIN=2002\tName=Carol\tPri=0\n"
        b"FP PIN=2002\tFID=0\tSize=4\tValid=1\tTMP=QUJD\nWHATEVER 1\n"
    )
    async with running(terminal, record), client(server) as http:
        answer = await http.post("/iclock/cdata?SN=A1&table=OPERLOG&Stamp=9999", content=body)
    assert answer.text == "OK: 4"
    assert [event.reason_code for event in record.events if isinstance(event, DoorEvent)] == [9, 0]
    assert (terminal.counters["users_dropped"], terminal.counters["templates_dropped"]) == (1, 1)


async def test_replays_the_log_of_a_real_terminal() -> None:
    vectors = json.loads(shared("vectors", "adms_zmm510_pushdemo_log.json").read_text("utf-8"))["vectors"]
    server, record = AdmsServer(), Recorder()
    async with running(server.terminal(config("SN00000000001")), record), client(server) as http:
        for vector in vectors:
            if "SN=" not in vector["url"]:
                continue
            answer = await http.request(vector["kind"], vector["url"], content=vector.get("body"))
            assert answer.status_code == 200
            if vector["kind"] == "POST":
                assert answer.text == "OK: 1"
    assert sum(isinstance(event, Punch) for event in record.events) == 6


async def test_a_log_in_one_upload_is_recorded_in_parts_cut_where_the_time_changes() -> None:
    server, calls = AdmsServer(), list[tuple[list[DeviceEvent], bytes | None]]()

    class Parts(Recorder):
        async def __call__(self, events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None:
            calls.append((list(events), cursor))

    minutes = [f"{n // 7 // 60 % 24:02}:{n // 7 % 60:02}" for n in range(52_000)]  # seven punches in each
    body = "".join(f"1\t2026-01-31 {minute}:00\t0\t1\n" for minute in minutes)
    async with running(server.terminal(config()), Parts()), client(server) as http:
        answer = await http.post("/iclock/cdata?SN=A1&table=ATTLOG&Stamp=77", content=body)
    assert answer.text == "OK: 52000"
    parts = [[event.device_time for event in events if isinstance(event, Punch)] for events, _ in calls]
    assert sum(map(len, parts)) == 52_000
    assert max(map(len, parts)) < 1100
    assert all(before[-1] != after[0] for before, after in pairwise(parts))
    stamps = [json.loads(cursor or b"").get("ATTLOG") for _, cursor in calls]
    assert set(stamps[:-1]) == {None}
    assert stamps[-1] == "77"


async def test_a_clock_that_stands_still_does_not_hold_a_log_up() -> None:
    server, record = AdmsServer(), Recorder()
    async with running(server.terminal(config()), record), client(server) as http:
        answer = await http.post("/iclock/cdata?SN=A1&table=ATTLOG&Stamp=77", content=LINE * 9500)
    assert answer.text == "OK: 9500"
    assert len(record.events) == 9500


async def test_bodies_count_together_until_they_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_drivers.adms.server.MAX_BODIES_TOGETHER", 2 * len(LINE))
    server, record = AdmsServer(), Recorder(gate=asyncio.Event())
    push, body = "/iclock/cdata?SN=A1&table=ATTLOG&Stamp=9999", LINE + LINE
    async with running(server.terminal(config()), record), client(server) as http:
        first = asyncio.create_task(http.post(push, content=body))
        await record.entered.wait()
        assert (await http.post(push, content=body)).status_code == 503
        assert record.gate is not None
        record.gate.set()
        assert (await first).status_code == 200
        record.fails = OSError("no store")
        assert (await http.post(push, content=body)).status_code == 500
    assert server._bytes_in_flight == 0


async def test_a_body_past_the_cap_is_refused_unread() -> None:
    server = AdmsServer(max_body=1000)
    async with running(server.terminal(config()), Recorder()), client(server) as http:
        url = "/iclock/cdata?SN=A1&table=ATTLOG"
        stated = await http.post(url, content=b"x" * 1001)
        assert (stated.status_code, stated.headers["connection"]) == (413, "close")

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(200):
                yield b"x" * 10

        assert (await http.post(url, content=chunks())).status_code == 413


@pytest.mark.parametrize(
    "path", ["/", "/iclock", "/iclock/", "/iclock/shell?SN=A1", "/iclock/cdata/x?SN=A1", "/x?SN=A1"]
)
async def test_other_paths_are_no_service(path: str) -> None:
    server = AdmsServer()
    async with running(server.terminal(config()), Recorder()), client(server) as http:
        assert (await http.get(path)).status_code in {400, 404}


async def test_a_query_too_long_or_too_crowded_is_refused() -> None:
    server = AdmsServer()
    async with client(server) as http:
        assert (await http.get("/iclock/ping?SN=A1&x=" + "y" * 5000)).status_code == 414
        assert (await http.get("/iclock/ping?" + "&".join(f"k{i}=1" for i in range(40)))).status_code == 400


async def test_a_silent_terminal_is_a_lost_link() -> None:
    server = AdmsServer()
    with pytest.raises(LinkTimeout):
        await asyncio.wait_for(server.terminal(config(silence_s=0.02)).run(Recorder()), 5)


def test_a_terminal_needs_its_serial_number_and_its_server() -> None:
    with pytest.raises(ValueError, match="serial number"):
        AdmsServer().terminal(DeviceConfig("gate", "adms"))
    with pytest.raises(ValueError, match=r"AdmsServer\.terminal"):
        make(config())
