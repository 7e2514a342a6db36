"""What `options` of a device may hold, by kind: one table for the check of a configuration and for people to read.

A misspelled option would be as good as none, and nobody would hear of it: a controller told to leave decisions to us
would go on deciding. Stored configurations of older versions are not held to it, new ones are.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Option:
    """`fits` says whether a value is allowed; `allowed` says the same in words. Chinese and English of what it does."""

    fits: Callable[[Any], bool]
    allowed: str
    default: str
    zh: str
    en: str


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _seconds(default: float, zh: str, en: str) -> Option:
    return Option(lambda v: _number(v) and v > 0, "a number of seconds above 0", f"{default:g}", zh, en)


def _whole(least: int, most: int, default: str, zh: str, en: str) -> Option:
    return Option(lambda v: _is_whole(v, least, most), f"a whole number, {least} to {most}", default, zh, en)


def _one_of(*values: str | int, default: str, zh: str, en: str) -> Option:
    return Option(lambda v: v in values, " or ".join(map(repr, values)), default, zh, en)


def _flag(zh: str, en: str) -> Option:
    return Option(lambda v: isinstance(v, bool), "true or false", "false", zh, en)


def _text(default: str, zh: str, en: str, *, allowed: str = "a text") -> Option:
    return Option(lambda v: isinstance(v, str) and v != "", allowed, default, zh, en)


def _list(fits: Callable[[Any], bool], allowed: str, default: str, zh: str, en: str) -> Option:
    return Option(lambda v: isinstance(v, list | tuple) and all(map(fits, v)), allowed, default, zh, en)


def _network(value: Any) -> bool:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return isinstance(value, str)


def _networks(zh: str, en: str) -> Option:
    return _list(_network, "a list of addresses or networks", "any", zh, en)


def _sizes(of_zh: str, of_en: str) -> dict[str, Option]:
    return {
        name: _whole(1, 8192, "the device's own", f"{of_zh}{zh}，像素", f"{en} of {of_en} in pixels")
        for name, zh, en in (("width", "宽", "width"), ("height", "高", "height"))
    }


_BAUD = (1200, 921600)

# Of one reader among an OSDP line's `pds`. What `osdp.reader.ReaderConfig` makes of it.
_KEY = re.compile(r"([0-9A-Fa-f]{32})?")
_PD: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "address": (lambda v: _is_whole(v, 0, 126), "a whole number, 0 to 126"),
    "key": (lambda v: isinstance(v, str) and _KEY.fullmatch(v) is not None, "32 hexadecimal digits, or none yet"),
    "name": (lambda v: isinstance(v, str) and v != "", "a text"),
    "door": (lambda v: _is_whole(v, 1, 64), "a whole number, 1 to 64"),
    "output": (lambda v: _is_whole(v, 0, 255), "a whole number, 0 to 255"),
    "inputs": (
        lambda v: (
            isinstance(v, dict)
            and all(str(n).isdecimal() and isinstance(m, str) and m in {"contact", "button"} for n, m in v.items())
        ),
        'a table of number = "contact" or "button"',
    ),
}


def _pd_faults(pds: Any) -> list[str]:
    """Of the readers on an OSDP line; no key is in them."""
    found = []
    for n, pd in enumerate(pds):
        found += [
            f"pds[{n}].{name[:64]} is nothing of a reader; allowed are {', '.join(_PD)}"
            for name in pd
            if name not in _PD
        ]
        for name, (fits, allowed) in _PD.items():
            if (name in pd or name == "address") and not fits(pd.get(name)):
                shown = f" is {pd[name]!r:.64}" if name in pd and name not in {"key", "inputs"} else ""
                found.append(f"pds[{n}].{name}{shown}: allowed is {allowed}")
    if not found:
        for name, numbers in (
            ("address", [pd["address"] for pd in pds]),
            ("door", [pd.get("door", position) for position, pd in enumerate(pds, start=1)]),
        ):
            twice = {number for number in numbers if numbers.count(number) > 1}
            found += [f"pds: {name} {min(twice)} is that of two readers; allowed is one of its own"] if twice else []
    return found


# Read by the agent, for every kind that keeps people in a memory of its own.
_PEOPLE = {
    "sync": _flag("设备上的人员由网关维护", "its people are kept from here: added, changed and removed"),
    "profiles": Option(
        lambda v: isinstance(v, dict) and all(isinstance(n, int) and not isinstance(n, bool) for n in v.values()),
        "a table of schedule = number of the device's time profile", "chosen by the gateway",
        "哪个时段用设备的几号时间段", "which of the device's time profiles stands for which schedule",
    ),
}  # fmt: skip

OPTIONS: Mapping[str, Mapping[str, Option]] = {
    "zkteco": {
        "transport": _one_of("tcp", "udp", default="tcp", zh="连接方式", en="how it is reached"),
        "checksum": _one_of(
            "verify", "ignore", default="verify", zh="固件校验和有误时用 ignore",
            en="ignore for firmware whose check sums are wrong",
        ),
        "user_size": _one_of(
            28, 72, default="read from the terminal", zh="终端还没有用户时，用户记录的字节数",
            en="bytes of a user record, for a terminal that has no user yet",
        ),
        "connect_s": _seconds(10, "等待连接", "for the connection to stand"),
        "reply_s": _seconds(10, "等待一次回答", "for one reply"),
        "chunk_s": _seconds(20, "读表时等待下一块", "for the next piece of a table"),
        "keepalive_s": _seconds(30, "多久检查一次连接和记录数", "between looks at the link and the number of records"),
        "confirm_s": _seconds(300, "多久用日志核对一次实时事件", "between checks of live events against the log"),
        **_PEOPLE,
    },
    "adms": {
        "silence_s": _seconds(180, "多久没有呼叫算离线", "without a call until it counts as lost"),
        "command_timeout_s": _seconds(60, "等待一条命令的结果", "for the result of a command"),
        "quiet_s": _seconds(5, "查询结果多久不再来算完", "without a row until a query's answer is complete"),
        "addresses": _networks("只准从这些地址呼叫", "where it may call from"),
        **_PEOPLE,
    },
    "isapi": {
        "events": _one_of(
            "stream", "push", "poll", default="stream", zh="事件从哪里来：长连接、终端推送或轮询",
            en="where events come from: an alert stream, the terminal's own push, or polling",
        ),
        "tls": _flag("用 HTTPS 连接", "reach it over HTTPS"),
        "ca_file": _text(
            "the system's", "核对证书用的 CA 文件", "authority that its certificate is checked with", allowed="a path"
        ),
        "readers": _list(
            lambda v: isinstance(v, int) and not isinstance(v, bool) and v > 0, "a list of reader numbers", "[1]",
            "指纹下发到哪些读头", "readers that fingerprints are given to",
        ),
        "poll_s": _seconds(5, "轮询间隔", "between polls"),
        "sweep_s": _seconds(300, "有实时事件时多久再读一次日志", "between readings of the log beside the events"),
        "check_s": _seconds(30, "多久检查一次推送设置", "between looks whether it still pushes to us"),
        "silence_s": _seconds(45, "长连接多久无声算断开", "of silence until the stream counts as broken"),
        "push_host": _text("ours on the link to it", "终端访问网关用的地址", "our address as the terminal reaches it",
                           allowed="an address"),
        "addresses": _networks("只准从这些地址推送", "where it may push from"),
        "host_id": Option(
            lambda v: (isinstance(v, str) and v != "") or (isinstance(v, int) and not isinstance(v, bool)),
            "a number or a text", "a free one",
            "覆盖终端的第几个监听主机", "listening server of the terminal to overwrite",
        ),
        **_PEOPLE,
    },
    "c3": {
        "poll_s": _seconds(0.5, "轮询间隔", "between polls"),
        "answer_timeout_s": _seconds(10, "等待一次回答", "for one answer"),
        **_PEOPLE,
    },
    "uhppote": {
        "protocol": _one_of("udp", "tcp", default="udp", zh="连接方式", en="how it is reached"),
        "bind": _text("any", "本机发出请求的地址", "our address for requests", allowed="an address"),
        "listen": _text("none: it is polled", "控制器把事件发到这里", "where the controller sends its events",
                        allowed="address:port"),
        "listen_bind": _text("as listen", "本机收事件的地址", "our address for them", allowed="address:port"),
        "timeout_s": _seconds(2.5, "等待一次回答", "for one answer"),
        "poll_s": _seconds(1, "轮询间隔；有 listen 时为 5", "between polls; 5 with listen"),
        "card_format": _one_of(
            "wiegand-26", "wiegand-34", default="wiegand-26", zh="读头的卡格式", en="format of its readers"
        ),
        "host_decides": _flag("由网关决定开门，控制器自己不开", "we decide; the controller opens nothing by itself"),
        "contacts": _list(
            lambda v: isinstance(v, int) and not isinstance(v, bool) and 1 <= v <= 4,
            "a list of door numbers, 1 to 4", "[]",
            "哪些门接了门磁；连接时就知道门是否开着",
            "doors with a contact wired: how they stand is known on connecting",
        ),
        **_PEOPLE,
    },
    "osdp": {
        "baud": _whole(*_BAUD, "9600", "串口速率", "speed of the serial line"),
        "format_37": _one_of("H10302", "H10304", default="H10302", zh="37 位卡的格式", en="what a card of 37 bits is"),
        "pds": _list(
            lambda v: isinstance(v, dict), f"a list of readers, each with {', '.join(_PD)}", "[], and required",
            "读卡器：address、key、name、door、output、inputs", "readers: address, key, name, door, output, inputs",
        ),
    },
    "fingerprint_uart": {
        "baud": _whole(*_BAUD, "57600", "串口速率", "speed of the serial line"),
        **_sizes("传感器图像", "the sensor's image"),
        "aura": _flag("有灯环（R503）", "it has a ring of light (R503)"),
        "look_s": _seconds(0.25, "多久看一次有没有手指", "between looks for a finger"),
    },
    "camera": {
        "fps": Option(
            lambda v: _number(v) and v > 0, "a number above 0", "5", "图片文件夹每秒几张", "images a second of a folder"
        ),
        **_sizes("USB 摄像头画面", "a USB camera's picture"),
    },
}  # fmt: skip


def faults(kind: str, options: Mapping[str, Any]) -> list[str]:
    """What is wrong with the options of a device of this kind, a sentence each; no value of a secret is in them."""
    known = OPTIONS.get(kind, {})
    found = []
    for name, value in options.items():
        if (option := known.get(name)) is None:
            found.append(f"{name[:64]} is no option of {kind}; allowed are {', '.join(sorted(known))}")
        elif not option.fits(value):
            shown = "" if isinstance(value, dict | list | tuple) else f" is {value!r:.64}"
            found.append(f"{name}{shown}: allowed is {option.allowed}")
    if kind == "osdp" and "pds" in options and not any(said.startswith("pds") for said in found):
        found += _pd_faults(options["pds"])
    if kind == "isapi" and "ca_file" in options and not options.get("tls"):
        found.append("ca_file: without tls = true nothing is encrypted or checked; allowed with it")
    return found


def missing(kind: str, options: Mapping[str, Any]) -> list[str]:
    """What a device of this kind cannot do without, a sentence each."""
    if kind == "osdp" and not options.get("pds"):
        return [f"pds: missing, and required; allowed is {OPTIONS[kind]['pds'].allowed}"]
    return []
