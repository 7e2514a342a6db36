"""The words a server may say to a push device. Two dialects: attendance push 2.x and security push 3.x.

Sources. Security push: Security PUSH 4.8, section 12. Attendance push: the command list of the maker's own push
demonstration (INFO, REBOOT, AC_UNLOCK, CLEAR LOG; USERINFO, FINGERTMP, FACE, BIODATA, BIOPHOTO, USERPIC, ATTLOG);
SpeedFace-V5L-RFID[TI] (ZAM180-NF-Ver1.1.17) was seen to take USERINFO with update, delete and query without a number,
and to refuse `USER ADD`, `USER DEL` and `DATA DEL` with -1002, so only the whole words are used. A template of an old
face keeps the spelling of that list (`Valid`, `Size`); firmware that tells its own as `SIZE` and `VALID` exists.
`StartDatetime` and `EndDatetime` are told back by terminals as 0; what else they take is not published, so the
attendance dialect sends no dates. A shell command exists; it is not offered.
"""

from __future__ import annotations

import base64
import re
from datetime import datetime
from enum import StrEnum

from device_drivers.devices import DeviceTemplate, DeviceUser
from device_drivers.zk_access import encode_seconds

USER_ID = re.compile(r"[A-Za-z0-9]{1,24}")  # PIN: digits, or a string where StringPinFunOn
FOLLOW_GROUP = -1  # how somebody proves who they are: as their group does
MAX_SECONDS_OPEN = 254  # one byte; 255 means: stay open
BIODATA_ALGORITHM = re.compile(r"biodata-(\d{1,2})-(\d{1,5})\.(\d{1,5})-(\d{1,2})")


class Dialect(StrEnum):
    ATTENDANCE = "attendance"
    SECURITY = "security"


def value(text: str) -> str:
    """A field's value: control characters would end the field, the line or the command."""
    return "".join(" " if character < " " or character == "\x7f" else character for character in text)


def user_id(text: str) -> str:
    """Raises ValueError for a number no device could hold, or one that would change the command."""
    if not USER_ID.fullmatch(text):
        raise ValueError("a user number must be 1 to 24 letters or digits")
    return text


def _pairs(**fields: object) -> str:
    return "\t".join(f"{key}={value(str(content))}" for key, content in fields.items())


def _date(moment: datetime | None, *, seconds: bool) -> str:
    if moment is None:
        return "0"
    return str(encode_seconds(moment)) if seconds else moment.strftime("%Y%m%d")


def put_user(user: DeviceUser, dialect: Dialect, *, packed_dates: bool = False) -> list[str]:
    """Commands that make the device know this person; on panels the doors come in a second one.

    Raises ValueError for a number, or a wish, that the device cannot hold.
    """
    pin = user_id(user.user_id)
    if dialect is Dialect.ATTENDANCE:
        if not user.enabled:  # `Verify=0` lets in by any means, it bars nobody
            raise ValueError("an attendance terminal cannot hold somebody who is barred; take the person off it")
        return [
            "DATA UPDATE USERINFO "
            + _pairs(
                PIN=pin, Name=user.name, Pri=user.privilege, Passwd=user.pin, Card=user.card, Grp=1,
                Verify=FOLLOW_GROUP,
            )
        ]  # fmt: skip
    start = _date(user.valid_from, seconds=packed_dates)
    end = _date(user.valid_until, seconds=packed_dates)
    person = _pairs(
        CardNo=user.card, Pin=pin, Password=user.pin, Group=1, StartTime=start, EndTime=end, Name=user.name,
        Privilege=user.privilege, Disable=int(not user.enabled),
    )  # fmt: skip
    commands = [f"DATA UPDATE user {person}"]
    if user.doors:
        doors = sum(1 << door - 1 for door in set(user.doors) if 1 <= door <= 16)
        access = _pairs(Pin=pin, AuthorizeTimezoneId=user.schedule or 1, AuthorizeDoorId=doors)
        commands.append(f"DATA UPDATE userauthorize {access}")
    return commands


def delete_user(pin: str, dialect: Dialect) -> list[str]:
    """Rights and templates first, the person last (section 12.1.2)."""
    pin = user_id(pin)
    if dialect is Dialect.ATTENDANCE:
        return [f"DATA DELETE USERINFO PIN={pin}"]
    return [
        f"DATA DELETE userauthorize Pin={pin}",
        f"DATA DELETE templatev10 Pin={pin}",
        f"DATA DELETE user Pin={pin}",
    ]


def query_users(dialect: Dialect) -> str:
    if dialect is Dialect.ATTENDANCE:
        return "DATA QUERY USERINFO"
    return "DATA QUERY tablename=user,fielddesc=*,filter=*"


def query_access() -> str:
    return "DATA QUERY tablename=userauthorize,fielddesc=*,filter=*"


def query_templates(pin: str, kind: int, dialect: Dialect) -> str:
    """`kind` is the BIODATA type; 0 asks for the older fingerprint table."""
    pin = user_id(pin)
    if dialect is Dialect.ATTENDANCE:
        return f"DATA QUERY BIODATA Type={kind}\tPIN={pin}" if kind else f"DATA QUERY FINGERTMP PIN={pin}"
    if kind:
        return f"DATA QUERY tablename=biodata,fielddesc=*,filter=Type={kind}\tPin={pin}"
    return f"DATA QUERY tablename=templatev10,fielddesc=*,filter=Pin={pin}"


def query_log(start: datetime, end: datetime, dialect: Dialect) -> str:
    if dialect is Dialect.ATTENDANCE:
        return f"DATA QUERY ATTLOG StartTime={start:%Y-%m-%d %H:%M:%S}\tEndTime={end:%Y-%m-%d %H:%M:%S}"
    period = f"starttime={encode_seconds(start)}\tendtime={encode_seconds(end)}"
    return f"DATA QUERY tablename=transaction,fielddesc=*,filter={period}"


def put_template(template: DeviceTemplate, dialect: Dialect) -> str:
    """Raises ValueError for an algorithm this family does not have."""
    pin = user_id(template.user_id)
    text = base64.b64encode(template.payload).decode("ascii")
    if match := BIODATA_ALGORITHM.fullmatch(template.algorithm):
        kind, major, minor, form = (int(group) for group in match.groups())
        no, index = (template.index, 0) if kind in {1, 7} else divmod(template.index, 16)
        table = "BIODATA" if dialect is Dialect.ATTENDANCE else "biodata"
        return f"DATA UPDATE {table} " + _pairs(
            Pin=pin, No=no, Index=index, Valid=1, Duress=int(template.duress), Type=kind, MajorVer=major,
            MinorVer=minor, Format=form, Tmp=text,
        )  # fmt: skip
    if template.algorithm.startswith("zk-finger-"):
        valid = 3 if template.duress else 1
        if dialect is Dialect.ATTENDANCE:
            return "DATA UPDATE FINGERTMP " + _pairs(PIN=pin, FID=template.index, Size=len(text), Valid=valid, TMP=text)
        return "DATA UPDATE templatev10 " + _pairs(Pin=pin, FingerID=template.index, Valid=valid, Template=text)
    if template.algorithm.startswith("zk-face-") and dialect is Dialect.ATTENDANCE:
        return "DATA UPDATE FACE " + _pairs(PIN=pin, FID=template.index, Valid=1, Size=len(text), TMP=text)
    raise ValueError(f"{template.algorithm} is no format of this device family")


def delete_templates(pin: str, kinds: tuple[int, ...], dialect: Dialect) -> list[str]:
    """`kinds` as for `query_templates`."""
    pin = user_id(pin)
    words = []
    for kind in kinds:
        if dialect is Dialect.ATTENDANCE:
            words.append(f"DATA DELETE BIODATA Pin={pin}\tType={kind}" if kind else f"DATA DELETE FINGERTMP PIN={pin}")
        else:
            words.append(
                f"DATA DELETE biodata Type={kind}\tPin={pin}" if kind else f"DATA DELETE templatev10 Pin={pin}"
            )
    return words


def delete_face_sources(pin: str, dialect: Dialect) -> list[str]:
    """What else a face is matched or made anew from: the table of older faces, and the picture kept to compare with."""
    pin = user_id(pin)
    if dialect is Dialect.ATTENDANCE:
        return [f"DATA DELETE FACE PIN={pin}", f"DATA DELETE BIOPHOTO PIN={pin}"]
    return [f"DATA DELETE biophoto PIN={pin}"]


def open_door(door: int, seconds: float, dialect: Dialect) -> str:
    """Whole seconds on panels; an attendance terminal opens its one lock for its own configured time."""
    if dialect is Dialect.ATTENDANCE:
        if door != 1:
            raise ValueError("an attendance terminal has one door")
        return "AC_UNLOCK"
    if not 1 <= door <= 16:
        raise ValueError("doors are numbered from 1 to 16")
    return f"CONTROL DEVICE 01{door:02X}01{max(1, min(MAX_SECONDS_OPEN, round(seconds))):02X}"


def reboot(dialect: Dialect) -> str:
    return "REBOOT" if dialect is Dialect.ATTENDANCE else "CONTROL DEVICE 03000000"


def set_clock(device_time: datetime) -> str:
    return f"SET OPTIONS DateTime={encode_seconds(device_time)}"


def clear_log(dialect: Dialect) -> str:
    return "CLEAR LOG" if dialect is Dialect.ATTENDANCE else "DATA DELETE transaction *"


OPTIONS = (
    "FirmVer,~DeviceName,LockCount,~MaxUserCount,~MaxAttLogCount,~MaxFingerCount,~ZKFPVersion,FingerFunOn,FaceFunOn,"
    "DateFmtFunOn,MultiBioDataSupport,MultiBioVersion"
)


def ask_options(dialect: Dialect) -> str:
    """What a device is and can: it answers beside the confirmation (INFO) or in an upload of its own."""
    return "INFO" if dialect is Dialect.ATTENDANCE else f"GET OPTIONS {OPTIONS}"
