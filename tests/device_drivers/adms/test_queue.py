from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from device_drivers.adms.messages import Confirmation
from device_drivers.adms.queue import MAX_WAITING, RESEND_AFTER, CommandQueue, QueuedCommand
from device_drivers.devices import CommandState

NOW = datetime(2026, 6, 19, 8, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def command(
    number: int = 1, text: str = "CHECK", *, repeatable: bool = False, within: timedelta = MINUTE
) -> QueuedCommand:
    return QueuedCommand(number, text, NOW + within, repeatable)


def sent(queue: CommandQueue, *, at: datetime = NOW) -> bytes:
    return queue.due(at, "utf-8")[0]


def state(queue: CommandQueue, number: int = 1) -> CommandState:
    found = queue.get(number)
    assert found is not None
    return found.state


def test_several_commands_go_out_in_one_answer_in_order() -> None:
    queue = CommandQueue()
    queue.add(command(1, "INFO"))
    queue.add(command(2, "DATA QUERY USERINFO"))
    assert sent(queue) == b"C:1:INFO\nC:2:DATA QUERY USERINFO\n"
    assert sent(queue) == b""


def test_a_confirmation_settles_a_command() -> None:
    queue = CommandQueue()
    queue.add(command())
    sent(queue)
    [done] = queue.confirm(Confirmation(1, 0, "CHECK"))
    assert done.state is CommandState.DONE
    assert done.text == ""  # what it said is not kept
    assert queue.confirm(Confirmation(1, -1, "CHECK")) == []  # the same answer again, or a liar


def test_a_negative_return_is_a_reasoned_failure() -> None:
    queue = CommandQueue()
    queue.add(command())
    sent(queue)
    [failed] = queue.confirm(Confirmation(1, -1004, "DATA"))
    assert (failed.state, failed.code) == (CommandState.FAILED, -1004)
    assert "not on this model" in failed.reason


def test_minus_5000_is_accepted_and_settles_later() -> None:
    queue = CommandQueue()
    queue.add(command())
    sent(queue)
    queue.confirm(Confirmation(1, -5000, "DATA"))
    assert state(queue) is CommandState.ACCEPTED
    queue.confirm(Confirmation(1, 0, "DATA"))
    assert state(queue) is CommandState.DONE


def test_a_confirmation_of_what_was_never_sent_changes_nothing() -> None:
    queue = CommandQueue()
    queue.add(command())
    assert queue.confirm(Confirmation(1, 0, "CHECK")) == []
    assert queue.confirm(Confirmation(77, 0, "CHECK")) == []
    assert state(queue) is CommandState.QUEUED


def test_a_door_is_opened_once_and_never_after_its_deadline() -> None:
    queue = CommandQueue()
    queue.add(command(1, "AC_UNLOCK", within=timedelta(seconds=10)))
    assert sent(queue, at=NOW + timedelta(seconds=10)) == b""
    [expired] = queue.expire(NOW + timedelta(seconds=10))
    assert expired.state is CommandState.FAILED
    queue.add(command(2, "AC_UNLOCK", within=10 * MINUTE))
    assert sent(queue) != b""
    assert sent(queue, at=NOW + RESEND_AFTER) == b""


def test_data_is_sent_again_when_no_confirmation_came() -> None:
    queue = CommandQueue()
    queue.add(command(1, "DATA UPDATE USERINFO PIN=1", repeatable=True, within=10 * MINUTE))
    first = sent(queue)
    assert sent(queue, at=NOW + RESEND_AFTER / 2) == b""
    assert sent(queue, at=NOW + RESEND_AFTER) == first


@pytest.mark.parametrize("was_sent", [False, True], ids=["still waiting", "sent, not confirmed"])
def test_a_deletion_is_never_followed_by_what_it_deleted(was_sent: bool) -> None:
    queue = CommandQueue()
    queue.add(command(1, "DATA UPDATE BIODATA Pin=7\tType=9\tTmp=QUJD", repeatable=True, within=10 * MINUTE))
    queue.add(command(2, "DATA UPDATE USERINFO PIN=77\tName=other", repeatable=True, within=10 * MINUTE))
    if was_sent:
        sent(queue)
    [overtaken] = queue.add(command(3, "DATA DELETE BIODATA Pin=7\tType=9", repeatable=True, within=10 * MINUTE))
    assert overtaken.command_id == 1
    assert state(queue) is (CommandState.SENT if was_sent else CommandState.FAILED)
    sent(queue)
    queue.confirm(Confirmation(3, 0, "DATA"))  # and the confirmation of the first is lost
    later = sent(queue, at=NOW + RESEND_AFTER)
    assert b"Pin=7\t" not in later
    assert b"PIN=77" in later


def test_a_late_confirmation_says_what_became_of_an_unknown_command() -> None:
    queue = CommandQueue()
    queue.add(command())
    sent(queue)
    [unknown] = queue.expire(NOW + MINUTE)
    assert unknown.state is CommandState.UNKNOWN
    [late] = queue.confirm(Confirmation(1, 0, "CHECK"))
    assert late.state is CommandState.DONE


def test_the_queue_has_an_end() -> None:
    queue = CommandQueue()
    for number in range(MAX_WAITING):
        queue.add(command(number))
    with pytest.raises(ValueError, match="wait"):
        queue.add(command(MAX_WAITING))


def test_names_leave_in_the_devices_code_page() -> None:
    queue = CommandQueue()
    queue.add(command(1, "DATA UPDATE USERINFO PIN=1\tName=王"))
    assert queue.due(NOW, "gb18030")[0] == "C:1:DATA UPDATE USERINFO PIN=1\tName=王\n".encode("gb2312")
