"""What a machine lacks for its configuration to mean what it says: files that cannot be read, ports taken twice.

Apart from `config.py`, which looks at nothing but the document itself.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from edge_agent.config import AgentConfig, Device, listen_address

EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - only compared with


def listeners_unusable(config: AgentConfig) -> list[str]:
    """What keeps this machine from listening, a sentence each: one port for two, certificates that do not fit."""
    return [
        *_port_fault(config.api.listen, config.adms.listen),
        *_certificate_fault("api.certificate", config.api.certificate, config.api.private_key),
        *_certificate_fault("adms.certificate", config.adms.certificate, config.adms.private_key),
    ]


def unusable(config: AgentConfig) -> list[str]:
    """What this machine lacks for its configuration to mean what it says, a sentence each."""
    site, found = config.site, listeners_unusable(config)
    if config.keys.path is not None and config.keys.provider not in {"file", "pkcs11"}:
        found.append(
            f"keys.path: nothing reads it where provider is {config.keys.provider}; allowed with file or pkcs11"
        )
    if config.keys.provider == "pkcs11" and (config.keys.path is None or not config.keys.options.get("pin_file")):
        found.append("keys: pkcs11 needs path, the token's library, and options.pin_file")
    if config.adms.listen is None and (calling := [device.name for device in site.devices if _calls(device)]):
        found.append(
            f"adms.listen: missing, so {', '.join(calling)} cannot call; allowed is an address such as 0.0.0.0:8081"
        )
    for n, device in enumerate(site.devices):
        if device.kind == "isapi" and (ca_file := device.options.get("ca_file")):
            found += _authority_fault(f"site.devices[{n}].options.ca_file", Path(str(ca_file)))
    for n, upstream in enumerate(site.upstreams):
        place = f"site.upstreams[{n}]"
        found += _authority_fault(f"{place}.ca_file", upstream.ca_file)
        found += _certificate_fault(f"{place}.client_certificate", upstream.client_certificate, upstream.client_key)
    found += _authority_fault("site.sign_in.oidc.ca_file", site.sign_in.oidc.ca_file if site.sign_in.oidc else None)
    return found


def _port_fault(api: str, adms: str | None) -> list[str]:
    """Without a port both would take the same."""
    if adms is None:
        return []
    (host, port), (other, taken) = listen_address(adms), listen_address(api)
    if port != taken or not port or (host != other and not {host, other} & EVERYWHERE):
        return []
    return [f"adms.listen: {adms!r} — port {port} is that of api.listen; allowed is another, such as 0.0.0.0:8081"]


def _calls(device: Device) -> bool:
    return device.enabled and (
        device.kind == "adms" or (device.kind == "isapi" and device.options.get("events") == "push")
    )


def _certificate_fault(place: str, certificate: Path | None, private_key: Path | None) -> list[str]:
    if certificate is None:
        return []
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, private_key, password="")
    except OSError as exc:
        allowed = "allowed is a PEM certificate that can be read, with its key, without a password"
        return [f"{place}: {str(certificate)!r} — {exc.strerror or exc}; {allowed}"]
    return []


def _authority_fault(place: str, file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError as exc:
        return [f"{place}: {str(file)!r} — {exc.strerror or exc}; allowed are PEM certificates that can be read"]
    return []
