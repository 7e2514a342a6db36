from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme

from edge_agent import config, usable

GOOD: dict[str, Any] = {
    "gateway": {"name": "gw-1", "tenant": "acme"},
    "site": {
        "timezone": "Asia/Shanghai",
        "devices": [{"name": "lobby", "kind": "zkteco", "address": "192.0.2.7", "password": "4711"}],
        "upstreams": [{"name": "hr", "url": "https://hr.example/punches", "secret": "s3cret-value"}],
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with one value put in at a dotted path; numbers index lists."""

    def put(node: Any, parts: list[str]) -> Any:
        if not parts:
            return value
        if isinstance(node, list):
            return [put(item, parts[1:]) if n == int(parts[0]) else item for n, item in enumerate(node)]
        return {**node, parts[0]: put(node.get(parts[0], {}), parts[1:])}

    made: dict[str, Any] = put(GOOD, path.split("."))
    return made


def problems(document: dict[str, Any]) -> str:
    with pytest.raises(config.ConfigError) as caught:
        config.parse(document, source="agent.toml")
    return str(caught.value)


def test_a_good_document_becomes_frozen_models() -> None:
    parsed = config.parse(GOOD, source="agent.toml")
    driver = parsed.site.devices[0].for_driver(parsed.site.timezone)
    assert (driver.address, driver.timezone, driver.password) == ("192.0.2.7", "Asia/Shanghai", "4711")


def test_biometrics_are_off_unless_somebody_switches_them_on() -> None:
    site = config.parse(GOOD, source="agent.toml").site
    assert site.modalities == {}
    assert site.devices[0].biometrics == ()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("gateway.nmae", "x", ["gateway.nmae", "unknown key"]),
        ("site.devices.0.kind", "zkteko", ["site.devices[0].kind", "'zkteko'", "zkteco"]),
        ("site.timezone", "China", ["site.timezone", "'China'", "Asia/Shanghai"]),
        ("site.upstreams.0.url", "http://hr.example/", ["site.upstreams[0]", "https://"]),
        ("site.upstreams.0.url", "http://127.0.0.1.hr.example/", ["site.upstreams[0]", "https://"]),
        ("site.upstreams.0.url", "http://127.0.0.1@hr.example/", ["site.upstreams[0]", "https://"]),
        ("site.upstreams.0.url", "https://me:secret@hr.example/", ["site.upstreams[0]", "username and password"]),
        ("site.upstreams.0.url", "https:///punches", ["site.upstreams[0]", "no host"]),
        ("site.upstreams.0.url", "https://hr.example:port/", ["site.upstreams[0]", "url: "]),
        ("site.retention", {"events_days": 0}, ["site.retention.events_days", "0", "greater than or equal to 1"]),
        ("site.retention", {"templates_days": 2000}, ["site.retention.templates_days", "1095"]),
        ("api", {"certificate": "/x.pem"}, ["api", "go together"]),
        (
            "adms",
            {"listen": "0.0.0.0:8081", "certificate": "/x.pem"},
            ["adms", "certificate and private_key go together"],
        ),
        ("site.devices", GOOD["site"]["devices"] * 2, ["'lobby' is used twice"]),
        ("site.privacy", {"health_fields": True}, ["site.privacy.health_fields", "allowed is false"]),
        (
            "site.upstreams.0.options",
            {"stream": "x"},
            ["upstreams[0].options", "no option of webhook; allowed are none"],
        ),
        ("keys", {"provider": "tpm", "options": {"tct": "x"}}, ["keys.options", "no option of tpm; allowed are tcti"]),
        ("site.devices.0.options", {"keep_alive": 5}, ["devices[0].options", "keep_alive is no option", "keepalive_s"]),
        ("site.devices.0.options", {"keepalive_s": "5"}, ["keepalive_s is '5'", "number of seconds above 0"]),
        ("site.devices.0.options", {"profiles": {"day": "2"}}, ["profiles: allowed is a table of schedule"]),
    ],
)
def test_a_refusal_names_the_key_the_value_and_what_is_allowed(path: str, value: Any, words: list[str]) -> None:
    said = problems(changed(path, value))
    for word in words:
        assert word in said


LOBBY: dict[str, Any] = {"name": "lobby", "address": "192.0.2.7", "kind": "zkteco"}
CALLS_US = {"name": "yard", "kind": "adms", "serial": "CQZ1"}


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ({"address": ""}, ["devices[0].address: '' — allowed for zkteco is host or host:port"]),
        ({"address": "192.0.2.7:70000"}, ["devices[0].address: '192.0.2.7:70000'", "host:port"]),
        ({"address": "https://192.0.2.7:80"}, ["devices[0].address: 'https://192.0.2.7:80'", "host:port"]),
        ({"password": "admin"}, ["devices[0].password: (not shown)", "communication key, a number"]),
        ({"password": "4294967296"}, ["devices[0].password: (not shown)", "32 bits"]),
        ({"username": "admin"}, ["devices[0].username: 'admin'", "allowed for zkteco is none"]),
        ({"encoding": "gbk2"}, ["devices[0].encoding: 'gbk2'", "utf-8 or gbk"]),
        ({"encoding": "base64"}, ["devices[0].encoding: 'base64'", "utf-8 or gbk"]),
        ({"serial": "S1 "}, ["devices[0].serial: 'S1 '", "without spaces around it"]),
        ({"biometrics": ["face"]}, ["devices[0].biometrics", "face is nothing that zkteco has", "are fingerprint"]),
        ({"kind": "uhppote", "biometrics": ["face"]}, ["devices[0].biometrics", "uhppote", "allowed are none"]),
        ({"kind": "uhppote", "password": "4711"}, ["devices[0].password: (not shown)", "allowed for uhppote is none"]),
        ({"kind": "uhppote", "serial": "SN405"}, ["devices[0].serial: 'SN405'", "such as 405419896"]),
        ({"kind": "adms"}, ["devices[0].serial: allowed for adms is its serial number"]),
        ({"kind": "osdp"}, ["devices[0].options", "pds: missing, and required", "address"]),
        ({"kind": "fingerprint_uart", "password": "x"}, ["devices[0].password: (not shown)", "0x12345678"]),
    ],
)
def test_what_a_kind_of_device_has_no_use_for_is_refused_with_what_is_allowed(
    device: dict[str, Any], words: list[str]
) -> None:
    document = changed("site.devices", [LOBBY | device])
    said = problems(document)
    for word in words:
        assert word in said
    assert config.parse(document, source="version 1", stored=True).site.devices  # an older release let it through


@pytest.mark.parametrize(
    ("upstream", "words"),
    [
        ({"kind": "mqtt", "url": "mqtt://hr.example", "ca_file": "/ca.pem"}, ["ca_file: mqtt://", "mqtts://"]),
        (
            {"kind": "nats", "url": "nats://hr.example", "client_certificate": "/c.pem"},
            ["client_certificate", "tls://"],
        ),
        ({"url": "http://127.0.0.1/in", "ca_file": "/ca.pem"}, ["ca_file: http://", "https://"]),
        ({"url": "https://hr.example/in", "client_key": "/c.key"}, ["client_key: allowed with client_certificate"]),
        ({"url": "https://hr.example/in", "password": "s3cret"}, ["password: allowed with username"]),
        (
            {"url": "https://hr.example/in", "pseudonymous": True},
            ["fields: user_id tells who", "allowed with it are subj"],
        ),
    ],
)
def test_what_looks_like_a_safeguard_of_an_upstream_and_is_none_is_refused(
    upstream: dict[str, Any], words: list[str]
) -> None:
    document = changed("site.upstreams", [{"name": "hr"} | upstream])
    said = problems(document)
    for word in ["site.upstreams[0]", *words]:
        assert word in said
    assert "s3cret" not in said
    assert config.parse(document, source="version 1", stored=True).site.upstreams


def test_two_entries_for_one_device_are_refused() -> None:
    document = changed("site.devices", [CALLS_US, CALLS_US | {"name": "yard-2"}])
    assert "devices: the serial 'CQZ1' is given twice" in problems(document)
    assert config.parse(document, source="version 1", stored=True).site.devices
    assert config.parse(changed("site.devices", [CALLS_US, LOBBY | {"serial": "CQZ1"}]), source="t")  # other kinds


def test_rules_that_do_not_fit_the_devices_are_refused() -> None:
    document = changed("site.access", {"doors": [{"name": "front", "device": "loby"}]})
    assert "access.doors[front].device: there is no device 'loby' that opens doors; allowed: lobby" in problems(
        document
    )
    assert config.parse(document, source="version 1", stored=True).site.access.doors


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"provider": "systemd", "path": "/etc/key"}, "keys.path: nothing reads it where provider is systemd"),
        ({"provider": "pkcs11", "path": "/usr/lib/token.so"}, "keys: pkcs11 needs path"),
    ],
)
def test_a_place_for_keys_that_nothing_reads_is_told(keys: dict[str, Any], said: str) -> None:
    [fault] = usable.unusable(config.parse(GOOD | {"keys": keys}, source="t"))
    assert fault.startswith(said)


@pytest.mark.parametrize(
    ("api", "adms", "fits"),
    [
        ("0.0.0.0:8443", "0.0.0.0:8081", True),
        ("192.0.2.1:8443", "192.0.2.2:8443", True),
        ("127.0.0.1:0", "127.0.0.1:0", True),
        ("0.0.0.0:8443", "192.0.2.1", False),
        ("192.0.2.1:9000", "[::]:9000", False),
    ],
)
def test_two_listeners_on_one_port_are_told(api: str, adms: str, fits: bool) -> None:
    parsed = config.parse(GOOD | {"api": {"listen": api}, "adms": {"listen": adms}}, source="t")
    assert [said.startswith(f"adms.listen: {adms!r} — port") for said in usable.listeners_unusable(parsed)] == (
        [] if fits else [True]
    )


def test_what_this_machine_lacks_is_told_before_it_starts(tmp_path: Path) -> None:
    authority = trustme.CA()
    own, other = authority.issue_cert("gw.example"), authority.issue_cert("other.example")
    ca, cert, key, wrong = (tmp_path / name for name in ("ca.pem", "gw.pem", "gw.key", "other.key"))
    authority.cert_pem.write_to_path(str(ca))
    own.cert_chain_pems[0].write_to_path(str(cert))
    own.private_key_pem.write_to_path(str(key))
    other.private_key_pem.write_to_path(str(wrong))
    secured = {"certificate": str(cert), "private_key": str(key)}
    hik = LOBBY | {"kind": "isapi", "options": {"tls": True, "ca_file": str(ca)}}
    hr = {"name": "hr", "url": "https://hr.example/in", "ca_file": str(ca)}
    site = {"devices": [CALLS_US, hik], "upstreams": [hr | {"client_certificate": str(cert), "client_key": str(key)}]}
    good = GOOD | {"api": secured, "adms": secured | {"listen": "0.0.0.0:8081"}, "site": site}
    assert usable.unusable(config.parse(good, source="t")) == []

    gone = str(tmp_path / "gone.pem")
    site = {
        "devices": [CALLS_US, hik | {"options": {"tls": True, "ca_file": str(key)}}],
        "upstreams": [hr | {"ca_file": gone, "client_certificate": str(cert), "client_key": gone}],
        "sign_in": {"oidc": {"issuer": "https://id.example", "client_id": "gw", "ca_file": gone}},
    }
    parsed = config.parse(GOOD | {"api": secured | {"private_key": str(wrong)}, "site": site}, source="t")
    assert [said.split(": ")[0] for said in usable.listeners_unusable(parsed)] == ["api.certificate"]
    assert [said.split(": ")[0] for said in usable.unusable(parsed)] == [
        "api.certificate",
        "adms.listen",
        "site.devices[1].options.ca_file",
        "site.upstreams[0].ca_file",
        "site.upstreams[0].client_certificate",
        "site.sign_in.oidc.ca_file",
    ]
    assert f"{gone!r} — No such file" in usable.unusable(parsed)[-1]


def test_a_gateway_that_has_begun_starts_with_what_an_older_release_let_through(tmp_path: Path) -> None:
    file, folder = tmp_path / "agent.toml", tmp_path / "data"
    file.write_text(
        f"""
        gateway = {{ name = "gw", tenant = "t", data_dir = "{folder}" }}
        site.devices = [{{ name = "lobby", kind = "zkteco", address = "192.0.2.7", options = {{ keep_alive = 5 }} }}]
        """,
        "utf-8",
    )
    with pytest.raises(config.ConfigError, match="keep_alive"):
        config.load(file)  # the first start: nothing is in force yet
    folder.mkdir()
    (folder / "agent.db").touch()
    assert config.load(file).site.devices
    with pytest.raises(config.ConfigError, match="keep_alive"):
        config.load(file, check=True)


def test_a_missing_key_is_named() -> None:
    assert "gateway.tenant: missing" in problems({"gateway": {"name": "gw-1"}})


def test_secrets_are_not_repeated_in_refusals() -> None:
    document = changed("site.upstreams.0.secret", ["s3cret-value"])
    assert "s3cret-value" not in problems(document)


def test_all_faults_are_told_at_once() -> None:
    document = changed("site.timezone", "China")
    document["gateway"] = {"name": "gw-1"}
    assert problems(document).startswith("agent.toml: 2 thing(s)")


def test_a_file_that_is_no_toml_names_the_place(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("[gateway\nname = 1", "utf-8")
    with pytest.raises(config.ConfigError, match="line 1"):
        config.load(file)


def test_a_missing_file_says_where_to_start(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"agent\.example\.toml"):
        config.load(tmp_path / "none.toml")
