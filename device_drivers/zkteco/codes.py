"""Numbers of the ZKTeco 4370 protocol that client and terminal share: commands, replies, events, sizes.

Source: adrobinoga/zk-protocol, protocol.md and sections/*.md (captures of an F19); commands it lacks
are named by what users of other implementations saw on the wire.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

DEFAULT_PORT = 4370
TCP_MAGIC = b"\x50\x50\x82\x7d"
CHUNK_TCP = 0xFFC0  # largest chunk terminals serve over TCP in one piece
CHUNK_UDP = 16 * 1024
DATAGRAM_DATA = 1024  # payload of one data packet over UDP


class Command(IntEnum):
    """What a client asks, and what a terminal answers: one number space on the wire."""

    DB_RRQ = 7
    USER_WRQ = 8
    USERTEMP_RRQ = 9
    OPTIONS_RRQ = 11
    OPTIONS_WRQ = 12
    ATTLOG_RRQ = 13
    CLEAR_ATTLOG = 15
    DELETE_USER = 18
    DELETE_USERTEMP = 19
    UNLOCK = 31
    GET_FREE_SIZES = 50
    STARTVERIFY = 60
    CANCELCAPTURE = 62
    TMP_WRITE = 87
    GET_USERTEMP = 88
    SAVE_USERTEMPS = 110
    CHECKSUM_BUFFER = 119
    DEL_FPTMP = 134
    GET_TIME = 201
    SET_TIME = 202
    REG_EVENT = 500
    CONNECT = 1000
    EXIT = 1001
    ENABLEDEVICE = 1002
    DISABLEDEVICE = 1003
    RESTART = 1004
    REFRESHDATA = 1013
    GET_VERSION = 1100
    AUTH = 1102
    PREPARE_DATA = 1500
    DATA = 1501
    FREE_DATA = 1502
    DATA_WRRQ = 1503
    DATA_RDY = 1504
    ACK_OK = 2000
    ACK_ERROR = 2001
    ACK_UNAUTH = 2005
    ACK_UNKNOWN = 0xFFFF


class Table(IntEnum):
    """Third field of a DATA_WRRQ: which table is wanted."""

    ATTLOG = 0  # with ATTLOG_RRQ; 1 is seen too
    FINGERTMP = 2
    USER = 5


class EventFlag(IntFlag):
    """Kinds of realtime packets; the mask of REG_EVENT."""

    ATTLOG = 1
    FINGER = 2
    ENROLLUSER = 4
    ENROLLFINGER = 8
    BUTTON = 16
    UNLOCK = 32
    VERIFY = 128
    FPFTR = 256
    ALARM = 512


ATTLOG_SIZES = (8, 16, 40, 49)  # bytes of one attendance record, by firmware
USER_SIZES = (28, 72)
LIVE_SIZES = (10, 12, 14, 32, 36, 37, 52)  # bytes of one live attendance event, by firmware
FREE_SIZES_LEN = 92  # twenty-three little-endian int32

# Indices into the int32 array that GET_FREE_SIZES answers (F18, Ver 6.60, and every list since).
SIZES_USERS, SIZES_FINGERS, SIZES_RECORDS = 4, 6, 8
SIZES_MAX_FINGERS, SIZES_MAX_USERS, SIZES_MAX_RECORDS = 14, 15, 16
SIZES_FACES, SIZES_MAX_FACES = 20, 22

PRIVILEGE_DISABLED = 0x01  # bit 0 of a user's permission byte; bits 1-3 are the level
