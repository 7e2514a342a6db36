"""KEKs behind a PKCS#11 token (HSM, smart card).

Per KEK the token makes an AES-256 key that cannot leave it, and the KEK rests in the token as a private data object
encrypted under that key. Destroying deletes both; a copy of the data object alone is noise.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from templates_store.envelope import KEY_LEN
from templates_store.errors import KeyUnavailable
from templates_store.keys.provider import check_kek, is_kek_id

PREFIX = "edge-agent-kek-"
IV_LEN = 16
_CANNOT_OPEN = "the PKCS#11 token cannot be opened: check the module's path, the token's label and the PIN"


class Token:
    """`module` is the vendor's library, e.g. /usr/lib/softhsm/libsofthsm2.so."""

    def __init__(self, module: Path, *, label: str, pin: str) -> None:
        self._module = module
        self._label = label
        self._pin = pin
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return "pkcs11"

    @property
    def warning(self) -> str:
        return ""

    def keys(self) -> Mapping[str, bytes]:
        import pkcs11

        out = {}
        with self._session() as session:
            for found in list(session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.DATA})):
                label = str(found[pkcs11.Attribute.LABEL])
                kek_id = label.removeprefix(PREFIX)
                if not label.startswith(PREFIX) or not is_kek_id(kek_id):
                    continue
                wrapping = list(session.get_objects(self._wrapping(kek_id)))
                if not wrapping:
                    continue  # destroyed half-way: the rest is noise
                blob = bytes(found[pkcs11.Attribute.VALUE])
                key = wrapping[0].decrypt(
                    blob[IV_LEN:], mechanism=pkcs11.Mechanism.AES_CBC_PAD, mechanism_param=blob[:IV_LEN]
                )
                if len(key) == KEY_LEN:
                    out[kek_id] = bytes(key)
        return out

    def create(self, kek_id: str, key: bytes) -> None:
        import pkcs11

        check_kek(kek_id, key)
        attribute = pkcs11.Attribute
        with self._session() as session:
            wrapping = session.generate_key(
                pkcs11.KeyType.AES,
                KEY_LEN * 8,
                label=PREFIX + kek_id,
                store=True,
                capabilities=pkcs11.MechanismFlag.ENCRYPT | pkcs11.MechanismFlag.DECRYPT,
                template={attribute.SENSITIVE: True, attribute.EXTRACTABLE: False, attribute.PRIVATE: True},
            )
            iv = session.generate_random(IV_LEN * 8)
            sealed = wrapping.encrypt(key, mechanism=pkcs11.Mechanism.AES_CBC_PAD, mechanism_param=iv)
            session.create_object(
                {
                    attribute.CLASS: pkcs11.ObjectClass.DATA,
                    attribute.LABEL: PREFIX + kek_id,
                    attribute.TOKEN: True,
                    attribute.PRIVATE: True,
                    attribute.VALUE: bytes(iv) + bytes(sealed),
                }
            )

    def destroy(self, kek_id: str) -> None:
        import pkcs11

        attribute = pkcs11.Attribute
        with self._session() as session:
            doomed = list(session.get_objects(self._wrapping(kek_id)))
            doomed += list(
                session.get_objects({attribute.CLASS: pkcs11.ObjectClass.DATA, attribute.LABEL: PREFIX + kek_id})
            )
            for each in doomed:
                each.destroy()

    @staticmethod
    def _wrapping(kek_id: str) -> dict[Any, Any]:
        import pkcs11

        return {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
            pkcs11.Attribute.LABEL: PREFIX + kek_id,
        }

    @contextmanager
    def _session(self) -> Iterator[Any]:
        """A read-write session; one at a time. Translates every failure of the token."""
        try:
            import pkcs11
        except ImportError as exc:
            raise KeyUnavailable("python-pkcs11 is not installed: pip install edge-agent[pkcs11]") from exc
        with self._lock:
            try:
                token = pkcs11.lib(str(self._module)).get_token(token_label=self._label)
                with token.open(rw=True, user_pin=self._pin) as session:
                    yield session
            except pkcs11.PKCS11Error as exc:
                raise KeyUnavailable(_CANNOT_OPEN) from exc
            except RuntimeError as exc:  # the library itself cannot be loaded
                raise KeyUnavailable(_CANNOT_OPEN) from exc
