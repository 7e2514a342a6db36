"""The console's terms in Chinese and English, where more than one page uses them."""

from __future__ import annotations

from edge_agent.api.roles import Role
from templates_store.template import Modality, Purpose

# modality -> icon, Chinese, English
MODALITIES = {
    Modality.FACE: ("face", "人脸", "Face"),
    Modality.FINGERPRINT: ("finger", "指纹", "Finger"),
    Modality.VOICE: ("mic", "声纹", "Voice"),
    Modality.IRIS: ("eye", "虹膜", "Iris"),
}
PURPOSES = {Purpose.ATTENDANCE: ("考勤", "Attendance"), Purpose.ACCESS: ("开门", "Doors")}
ROLES = {
    Role.ADMIN: ("管理员", "Administrator"),
    Role.OPERATOR: ("操作员", "Operator"),
    Role.SECURITY: ("安保", "Security"),
    Role.PRIVACY_OFFICER: ("隐私专员", "Privacy officer"),
    Role.AUDITOR: ("审计员", "Auditor"),
    Role.INTEGRATION: ("集成", "Integration"),
}
KINDS = {
    "adms": ("ADMS 推送终端", "ADMS push terminal"),
    "c3": ("C3 门控制器", "C3 door controller"),
    "camera": ("摄像头", "Camera"),
    "fingerprint_uart": ("指纹模块", "Fingerprint module"),
    "isapi": ("ISAPI 终端", "ISAPI terminal"),
    "osdp": ("OSDP 读卡器", "OSDP readers"),
    "uhppote": ("UHPPOTE 门控制器", "UHPPOTE door controller"),
    "zkteco": ("ZKTeco 终端 4370", "ZKTeco terminal 4370"),
}
FIELDS = {
    "subject": ("人员假名", "Pseudonym"),
    "user_id": ("工号", "Number"),
    "name": ("姓名", "Name"),
    "location": ("位置", "Place"),
    "device": ("设备", "Device"),
    "verify": ("方式", "Method"),
    "clock": ("时钟差", "Clock offset"),
    "work_code": ("工作代码", "Work code"),
    "door": ("门", "Door"),
}
# Where a copy of a template lies, as a receipt names it.
PLACES = {
    "gallery": ("内存索引", "Memory index"),
    "templates.db": ("本机模板库：密钥已销毁", "Template store: key destroyed"),
    "templates.db-wal": ("本机模板库的写入日志", "Template store: write-ahead log"),
    "backups": ("旧备份：旧密钥作废后即无法打开", "Earlier backups: unreadable once the old key is gone"),
}
WEEKDAYS = {
    "mon": ("周一", "Mon"), "tue": ("周二", "Tue"), "wed": ("周三", "Wed"), "thu": ("周四", "Thu"),
    "fri": ("周五", "Fri"), "sat": ("周六", "Sat"), "sun": ("周日", "Sun"),
}  # fmt: skip
PLACED = {"placed": ("已下发", "placed"), "erasing": ("待删除", "to be deleted"), "gone": ("已删除", "deleted")}
