"""The console's terms in Chinese and English, where more than one page uses them."""

from __future__ import annotations

from edge_agent.policy.roles import Role
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
# Why a device is not online, by the class of its error; "" is any other.
DEVICE_FAULTS = {
    "LinkError": ("连不上它，网关会一直重试", "It cannot be reached; the gateway goes on trying"),
    "LinkTimeout": ("它没有回答，网关会一直重试", "It does not answer; the gateway goes on trying"),
    "ProtocolError": ("它发来的数据不合协议，网关会重新连接", "It broke its own protocol; the gateway connects again"),
    "FrameError": ("线路上的数据损坏，网关会重新连接", "Data was damaged on the way; the gateway connects again"),
    "DeviceRefused": ("它拒绝了请求", "It refused the request"),
    "AuthenticationFailed": ("用户名、密码或密钥不对，改正后重试", "User name, password or key is wrong; correct it"),
    "Unsupported": ("这个型号或固件不支持", "This model or firmware cannot do it"),
    "WrongDevice": ("这个地址上是另一台设备，核对序列号", "Another device answers there; check the serial number"),
    "DiskFull": ("磁盘已满，腾出空间后自动继续", "The disk is full; it goes on once there is room"),
    "": ("驱动出错，网关会重新连接", "A fault in the driver; the gateway connects again"),
}
WEEKDAYS = {
    "mon": ("周一", "Mon"), "tue": ("周二", "Tue"), "wed": ("周三", "Wed"), "thu": ("周四", "Thu"),
    "fri": ("周五", "Fri"), "sat": ("周六", "Sat"), "sun": ("周日", "Sun"),
}  # fmt: skip
PLACED = {"placed": ("已下发", "placed"), "erasing": ("待删除", "to be deleted"), "gone": ("已删除", "deleted")}
