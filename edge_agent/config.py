"""agent.toml -> frozen models. Refuses unknown keys; every refusal names the key, the value and what is allowed.

Two parts with different owners: `gateway`, `keys`, `api`, `adms` describe this machine and stay in the file;
`SiteConfig` (devices, doors, upstreams, switches, retention) is the enterprise's and is versioned in the
database once the agent has started. The file seeds version 1.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from device_drivers import catalog, devices, kinds
from device_drivers.links import split_address
from device_drivers.options import faults, missing
from edge_agent.policy.roles import Role
from edge_agent.policy.rules import AccessRules
from edge_agent.policy.two_people import TwoPeople
from edge_agent.wiring import wiring_faults
from templates_store.template import Modality

DATA_DIR = Path("/var/lib/edge-agent")
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})  # the only hosts that may be told in plain text


class ConfigError(ValueError):
    """A configuration that cannot be used; `problems` has one sentence per fault."""

    def __init__(self, source: str, problems: list[str]) -> None:
        super().__init__("\n".join([f"{source}: {len(problems)} thing(s) to correct", *(f"  {p}" for p in problems)]))
        self.source = source
        self.problems = problems


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be an IANA time zone such as Asia/Shanghai") from None
    return name


def listen_address(address: str) -> tuple[str, int]:
    """(host, port) to listen on; port 0 lets the system choose. Raises ValueError."""
    host, _, port = address.rpartition(":")
    if port == "0" and host:
        return host.strip("[]"), 0
    return split_address(address, 8443)


def _listen_address(address: str) -> str:
    listen_address(address)
    return address


Zone = Annotated[str, AfterValidator(_known_zone)]
Listen = Annotated[str, AfterValidator(_listen_address)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Location(Model):
    """The fixed place of a device, in WGS 84 degrees. Never gathered, only configured."""

    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)


class Gateway(Model):
    name: Name
    tenant: Name
    data_dir: Path = DATA_DIR
    ballast_mb: int = Field(32, ge=1, le=4096, description="disk space kept back so that a full disk can be recovered")


KEY_OPTIONS: Mapping[str, tuple[str, ...]] = {"tpm": ("tcti",), "pkcs11": ("label", "pin_file")}
UPSTREAM_OPTIONS: Mapping[str, tuple[str, ...]] = {"nats": ("prefix", "stream"), "mqtt": ("client_id", "prefix")}


def _only_known(options: dict[str, str], known: Mapping[str, tuple[str, ...]], kind: str | None) -> dict[str, str]:
    """A misspelled option would be as good as none, and nobody would hear of it. No kind: that is wrong already."""
    if kind is None:
        return options
    if unknown := options.keys() - set(known.get(kind, ())):
        allowed = ", ".join(known.get(kind, ())) or "none"
        raise ValueError(f"{min(unknown)[:64]} is no option of {kind}; allowed are {allowed}")
    return options


def _stored(info: ValidationInfo) -> bool:
    """A version that was in force before: it goes on, whatever it holds that means nothing any more."""
    return bool((info.context or {}).get("stored"))


class Keys(Model):
    """Where the key-encryption keys come from, strongest first."""

    provider: Literal["tpm", "pkcs11", "systemd", "file", "passphrase"] = "file"
    path: Path | None = None
    options: dict[str, str] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _known_options(cls, options: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        return _only_known(options, KEY_OPTIONS, info.data.get("provider"))


def _certified(certificate: Path | None, private_key: Path | None) -> None:
    if (certificate is None) != (private_key is None):
        raise ValueError("certificate and private_key go together")


class Api(Model):
    listen: Listen = "0.0.0.0:8443"
    certificate: Path | None = None
    private_key: Path | None = None
    hostnames: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _both_or_neither(self) -> Api:
        _certified(self.certificate, self.private_key)
        return self


class Adms(Model):
    """The port that terminals call (kind adms, kind isapi with events = "push"); apart from the configuration API."""

    listen: Listen | None = None
    certificate: Path | None = None
    private_key: Path | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Adms:
        _certified(self.certificate, self.private_key)
        return self


class Device(Model):
    name: Name
    kind: str
    address: str = Field("", validate_default=True)
    serial: str = Field("", max_length=64, validate_default=True)
    username: str = ""
    password: SecretStr = SecretStr("")
    timezone: Zone | None = None
    encoding: str = ""
    location: Location | None = None
    enabled: bool = True
    attendance: bool = Field(
        True, description="its punches count as attendance; it gets templates only of people who agreed to that"
    )
    biometrics: tuple[Modality, ...] = Field((), description="modalities the enterprise switched on for this device")
    options: dict[str, Any] = Field(default_factory=dict, validate_default=True)

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        if kind not in catalog.DRIVERS:
            raise ValueError(f"must be one of {', '.join(sorted(catalog.DRIVERS))}")
        return kind

    @field_validator("address", "serial", "username", "password", "encoding")
    @classmethod
    def _fits_the_kind(cls, value: str | SecretStr, info: ValidationInfo) -> str | SecretStr:
        kind, said = info.data.get("kind"), value.get_secret_value() if isinstance(value, SecretStr) else value
        if kind is not None and not _stored(info) and (wrong := kinds.fault(kind, info.field_name or "", said)):
            raise ValueError(wrong)
        return value

    @field_validator("biometrics")
    @classmethod
    def _modalities_of_the_kind(cls, wanted: tuple[Modality, ...], info: ValidationInfo) -> tuple[Modality, ...]:
        kind = info.data.get("kind")
        if kind is not None and not _stored(info) and (wrong := set(wanted) - set(kinds.KINDS[kind].biometrics)):
            allowed = ", ".join(kinds.KINDS[kind].biometrics) or "none"
            raise ValueError(f"{min(wrong)} is nothing that {kind} has; allowed are {allowed}")
        return wanted

    @field_validator("options")
    @classmethod
    def _known_options(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        kind = info.data.get("kind")
        if kind is not None and not _stored(info) and (wrong := [*faults(kind, options), *missing(kind, options)]):
            raise ValueError("; ".join(wrong))
        return options

    def for_driver(self, site_zone: str) -> devices.DeviceConfig:
        """The part that a driver may know."""
        return devices.DeviceConfig(
            name=self.name,
            kind=self.kind,
            address=self.address,
            serial=self.serial,
            password=self.password.get_secret_value(),
            username=self.username,
            timezone=self.timezone or site_zone,
            encoding=self.encoding,
            options=dict(self.options),
        )


Field_ = Literal["subject", "user_id", "name", "location", "device", "verify", "clock", "work_code", "door"]
NAMING = frozenset({"user_id", "name"})  # the same person everywhere


class Upstream(Model):
    """One recipient of events. Nothing leaves that `fields` does not name."""

    name: Name
    kind: Literal["webhook", "nats", "mqtt"] = "webhook"
    url: str = Field(max_length=2048)
    mandatory: bool = Field(True, description="events are kept until this recipient has acknowledged them")
    enabled: bool = True
    fields: tuple[Field_, ...] = ("subject", "user_id", "location", "device", "verify", "clock", "work_code", "door")
    pseudonymous: bool = Field(False, description="subject ids leave as keyed hashes of this recipient's own")
    batch: int = Field(100, ge=1, le=1000)
    timeout_s: float = Field(10.0, gt=0, le=120)
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    secret: SecretStr = SecretStr("")
    username: str = ""
    password: SecretStr = SecretStr("")
    options: dict[str, str] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _known_options(cls, options: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        return options if _stored(info) else _only_known(options, UPSTREAM_OPTIONS, info.data.get("kind"))

    @model_validator(mode="after")
    def _address(self) -> Upstream:
        schemes = {"webhook": ("https",), "nats": ("nats", "tls"), "mqtt": ("mqtt", "mqtts")}[self.kind]
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname, parts.port
        except ValueError as exc:
            raise ValueError(f"url: {exc}") from None
        plain_here = self.kind == "webhook" and parts.scheme == "http" and host in LOOPBACK
        if parts.scheme not in schemes and not plain_here:
            allowed = " or ".join(f"{scheme}://" for scheme in schemes)
            raise ValueError(f"url must start with {allowed} (plain http only to this machine)")
        if not host:
            raise ValueError("url names no host")
        if parts.username is not None or parts.password is not None:
            raise ValueError("url must not hold credentials; they go into username and password")
        return self

    @model_validator(mode="after")
    def _secured_as_it_looks(self, info: ValidationInfo) -> Upstream:
        """What would be read as a safeguard and be none."""
        if _stored(info):
            return self
        scheme = urlsplit(self.url).scheme
        secured = {"http": "https", "nats": "tls", "mqtt": "mqtts"}.get(scheme)
        for key in ("ca_file", "client_certificate", "client_key"):
            if secured and getattr(self, key) is not None:
                raise ValueError(f"{key}: {scheme}:// is not encrypted and checks nobody; allowed with {secured}://")
        if self.client_key is not None and self.client_certificate is None:
            raise ValueError("client_key: allowed with client_certificate, which is missing")
        if self.password.get_secret_value() and not self.username:
            raise ValueError("password: allowed with username, which is missing; without one neither is sent")
        if self.pseudonymous and (naming := [field for field in self.fields if field in NAMING]):
            allowed = ", ".join(field for field in get_args(Field_) if field not in NAMING)
            raise ValueError(
                f"fields: {naming[0]} tells who it is whom pseudonymous hides; allowed with it are {allowed}"
            )
        return self


class ModalitySwitch(Model):
    """The enterprise's switch; off unless said otherwise."""

    enabled: bool = False
    target_fpir: float = Field(0.001, gt=0, le=0.05, description="accepted share of strangers taken for somebody")
    engine: Literal["sface", "dlib"] = Field("sface", description="face only: which pipeline makes the templates")


class Retention(Model):
    """How long each class of data rests here. No schedule for templates means: no capture."""

    events_days: int = Field(30, ge=1, le=3650)
    audit_days: int = Field(1095, ge=30, le=3650)
    receipts_days: int = Field(1095, ge=30, le=3650)
    requests_days: int = Field(1095, ge=30, le=3650)
    templates_days: int | None = Field(None, ge=1, le=1095, description="since the last interaction; at most 3 years")


class Privacy(Model):
    notice_version: str = Field("", max_length=64)
    minor_age: int = Field(14, ge=0, le=21)
    geolocation: bool = Field(True, description="punches carry the configured place of their device")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="hosts that events may be sent to; empty: those of upstreams"
    )
    health_fields: bool = Field(False, description="nothing of health is kept by this release; allowed is false")
    impact_assessment: str = Field("", max_length=64, description="version of the impact assessment on file")
    high_risk: bool = Field(False, description="the assessment found a high risk: capture rests until it is redone")
    accepted_notices: tuple[str, ...] = Field((), description="earlier notices that differ in nothing material")

    @field_validator("health_fields")
    @classmethod
    def _nothing_of_health(cls, wanted: bool, info: ValidationInfo) -> bool:
        if wanted and not _stored(info):
            raise ValueError("nothing of health is kept by this release; allowed is false")
        return wanted


class Oidc(Model):
    """An identity provider for people: authorization code with PKCE. Nobody gets in whose claims map to no role."""

    issuer: str = Field(max_length=500, description="as the provider names itself, without /.well-known")
    client_id: str = Field(min_length=1, max_length=200)
    secret: SecretStr = Field(SecretStr(""), description="empty for a public client")
    label: str = Field("SSO", max_length=40, description="what the button says")
    scopes: tuple[str, ...] = ("openid", "profile")
    name_claim: str = Field("preferred_username", max_length=100)
    role_claim: str = Field("groups", max_length=100)
    roles: dict[str, Role] = Field(
        default_factory=dict, description="a value of the claim -> role; the first that fits"
    )
    ca_file: Path | None = None

    @field_validator("issuer")
    @classmethod
    def _secured(cls, issuer: str) -> str:
        parts = urlsplit(issuer)
        plain_here = parts.scheme == "http" and parts.hostname in LOOPBACK
        if not parts.hostname or (parts.scheme != "https" and not plain_here):
            raise ValueError("must start with https:// (plain http only to this machine)")
        return issuer


class SignIn(Model):
    """How people get in besides their password."""

    oidc: Oidc | None = None


class SiteConfig(Model):
    """Everything the enterprise decides; versioned, diffed and rolled back as one document."""

    site: str = Field("site", max_length=100)
    timezone: Zone = "UTC"
    devices: tuple[Device, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    modalities: dict[Modality, ModalitySwitch] = Field(default_factory=dict)
    privacy: Privacy = Privacy()
    retention: Retention = Retention()
    access: AccessRules = AccessRules()
    two_people: TwoPeople = TwoPeople()
    sign_in: SignIn = SignIn()

    @model_validator(mode="after")
    def _names_are_unique(self) -> SiteConfig:
        for what, names in (
            ("devices", [d.name for d in self.devices]),
            ("upstreams", [u.name for u in self.upstreams]),
        ):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"{what}: the name {min(twice)!r} is used twice; names must be unique")
        return self

    @model_validator(mode="after")
    def _devices_are_told_apart(self, info: ValidationInfo) -> SiteConfig:
        pinned = [(device.kind, device.serial) for device in self.devices if device.serial]
        twice = {serial for kind, serial in pinned if pinned.count((kind, serial)) > 1}
        if twice and not _stored(info):
            raise ValueError(f"devices: the serial {min(twice)!r} is given twice; allowed is one entry for each device")
        return self

    @model_validator(mode="after")
    def _rules_fit_the_devices(self, info: ValidationInfo) -> SiteConfig:
        wired = {device.name: device for device in self.devices}
        if not _stored(info) and (wrong := wiring_faults(self.access, wired)):
            raise ValueError("; ".join(wrong))
        return self


class AgentConfig(Model):
    gateway: Gateway
    keys: Keys = Keys()
    api: Api = Api()
    adms: Adms = Adms()
    site: SiteConfig = SiteConfig()


STOP_TIMEOUT = timedelta(seconds=20)


def explain(error: ValidationError, document: Any) -> list[str]:
    """One sentence per fault: the key, the value as it was written, what is allowed."""
    problems = []
    for fault in error.errors():
        key = ""
        value: Any = document
        secret = False
        for part in fault["loc"]:
            key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
            secret = secret or part in {"password", "secret"}
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                value = {}  # left out: nothing to show
        if fault["type"] == "extra_forbidden":
            problems.append(f"{key}: unknown key; look for a spelling mistake or a key of a newer version")
        elif fault["type"] == "missing":
            problems.append(f"{key}: missing, and required")
        else:
            shown = "(not shown)" if secret else repr(value)[:80] if not isinstance(value, dict | list) else ""
            said = fault["msg"].removeprefix("Value error, ")
            problems.append(f"{key or 'document'}: {shown + ' — ' if shown else ''}{said}")
    return problems


def parse(document: dict[str, Any], *, source: str, stored: bool = False) -> AgentConfig:
    """Raises ConfigError."""
    try:
        return AgentConfig.model_validate(document, context={"stored": stored})
    except ValidationError as exc:
        raise ConfigError(source, explain(exc, document)) from None


def _has_begun(document: dict[str, Any]) -> bool:
    """Whether the site of this file has been version 1: a newer release must start with it all the same."""
    gateway = document.get("gateway")
    folder = gateway.get("data_dir") if isinstance(gateway, dict) else None
    file = Path(folder if isinstance(folder, str) else DATA_DIR) / "agent.db"
    return os.path.exists(file)  # noqa: PTH110 - whoever has no rights there starts nothing either


def load(path: Path, *, check: bool = False) -> AgentConfig:
    """Read a TOML file; `check` holds its site to every rule, also where it has been in force before.

    Raises ConfigError with the line of a syntax fault.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(str(path), ["there is no such file; deploy/agent.example.toml is a start"]) from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(str(path), [f"cannot be read: {exc}"]) from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(str(path), [f"not valid TOML: {exc}"]) from exc
    return parse(document, source=str(path), stored=not check and _has_begun(document))
