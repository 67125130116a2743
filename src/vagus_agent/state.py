"""The agent's state folder: its lock, stored options (`Orders`), anchors, the maker's certificate; connects nowhere."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vagus.durable_files import PRIVATE_FOLDER, FolderLocked, lock_folder, replace_durably
from vagus.errors import Conflict, Malformed, Misconfigured
from vagus.reasons import Reason
from vagus_agent import keys
from vagus_agent.routes import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from cryptography.x509 import Certificate

    from vagus.tls import Credential as TlsCredential

_MAX_FILE: Final = 1024 * 1024
_READERS: Final[Mapping[str, Callable[[str], object]]] = {
    "server": Route.parse,
    "relay": Route.parse,
    "status": Route.parse,
    "category": str,
    "key_algorithm": keys.DeviceKeyAlgorithm,
    "log_key": str,
}
"""The fields of `Orders`, each with how its text in agent.json is read."""


@dataclass(frozen=True, slots=True)
class Orders:
    """The stored options: where its servers are, what it is, which key it makes."""

    server: Route | None = None
    relay: Route | None = None
    status: Route | None = None
    """Plain HTTP, for CRLs and checkpoints that the enrolment server does not give."""
    category: str = "device"
    key_algorithm: keys.DeviceKeyAlgorithm = keys.DeviceKeyAlgorithm.P256
    log_key: str | None = None
    """The log's verifier key as C2SP writes it: `name+hash+base64`."""


class StateFolder:
    """STATE/agent.json, anchors.pem, idevid/{certificate,key}.pem, lock; the rest belongs to other modules."""

    def __init__(self, path: Path, *, anchors: Path | None = None) -> None:
        """`anchors` counts instead of the pinned ones and is not remembered."""
        self.path = path
        self._anchors = anchors or path / "anchors.pem"

    def create(self) -> None:
        """Make it, readable by its owner alone."""
        try:
            self.path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        except OSError as error:
            msg = f"the state folder {self.path} cannot be made ({error.strerror}); give another --state"
            raise Misconfigured(Reason.BAD_ARGUMENT, msg) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder: two agents must not renew one certificate. Raises Conflict(ALREADY_EXISTS)."""
        self.create()
        try:
            with lock_folder(self.path / "lock", seconds=0):
                yield
        except FolderLocked:
            msg = f"another vagus-agent process uses state folder {self.path}; stop it or wait for its end"
            raise Conflict(Reason.ALREADY_EXISTS, msg) from None

    def load_orders(self) -> Orders:
        """The stored options, or defaults. Raises Misconfigured(BAD_SETTINGS) for a damaged file."""
        path = self.path / "agent.json"
        if not path.exists():
            return Orders()
        try:
            document = json.loads(_load_bounded(path))
            if not isinstance(document, dict) or not all(isinstance(document.get(k), str | None) for k in _READERS):
                raise ValueError
            given = {key: read(document[key]) for key, read in _READERS.items() if document.get(key)}
            # the mapping from JSON does not show which type each field has
            return Orders(**given)  # type: ignore[arg-type]
        except (ValueError, RecursionError, Malformed) as error:
            msg = f"options file {path} is damaged ({error}); remove it and give --server, --relay and --category again"
            raise Misconfigured(Reason.BAD_SETTINGS, msg, path=str(path)) from None

    def keep_orders(self, orders: Orders) -> None:
        """Remember them for later commands."""
        found = {key: getattr(orders, key) for key in _READERS}
        document = {key: None if value is None else str(value) for key, value in found.items()}
        _replace_changed(self.path / "agent.json", json.dumps(document, indent=1).encode("ascii"))

    def load_anchors(self) -> tuple[Certificate, ...]:
        """The pinned anchors. Raises Misconfigured(BAD_SETTINGS) before any were given."""
        path = self._anchors
        if not path.exists():
            msg = "no anchor is pinned; give --anchors FILE with the hospital's infrastructure CA, brought by hand"
            raise Misconfigured(Reason.BAD_SETTINGS, msg, path=str(path))
        return keys.decode_certificates(_load_bounded(path), str(path))

    def keep_anchors(self, source: Path) -> None:
        """Pin the anchors of a file. Raises Misconfigured(BAD_SETTINGS), Malformed(BAD_ENCODING)."""
        content = _load_bounded(source)
        if not keys.decode_certificates(content, str(source)):
            raise Malformed(Reason.BAD_ENCODING, f"anchor file {source} holds no certificate; give the anchors as PEM")
        _replace_changed(self.path / "anchors.pem", content)

    def keep_idevid(self, certificate: Path, key: Path) -> None:
        """Take the maker's certificate and its key into the folder; a key that is there is never replaced.

        Raises Misconfigured(KEY_MISMATCH) for a key that is not the certificate's, Conflict(ALREADY_EXISTS) where the
        folder holds another key: it may be the only copy. Nothing is written then.
        """
        folder = self.path / "idevid"
        content = {"certificate.pem": _load_bounded(certificate), "key.pem": _load_bounded(key)}
        given = keys.public_key_der(keys.decode_key(content["key.pem"]))
        if keys.certified_key_der(keys.decode_certificates(content["certificate.pem"], str(certificate))[0]) != given:
            msg = f"key file {key} is not the key of certificate file {certificate}; give the two of one pair"
            raise Misconfigured(Reason.KEY_MISMATCH, msg)
        kept = folder / "key.pem"
        if kept.exists() and keys.public_key_der(keys.decode_key(kept.read_bytes())) != given:
            msg = f"{kept} holds another key, perhaps its only copy; if it is not needed, move folder {folder} away"
            raise Conflict(Reason.ALREADY_EXISTS, msg)
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        for name in ("key.pem", "certificate.pem"):
            _replace_changed(folder / name, content[name])

    def find_idevid(self) -> TlsCredential | None:
        """The maker's certificate and key as a TLS credential, if the device has them."""
        folder = self.path / "idevid"
        if not (folder / "certificate.pem").exists() or not (folder / "key.pem").exists():
            return None
        from vagus.tls import Credential as TlsCredential  # loaded late: not every command needs OpenSSL

        return TlsCredential((folder / "certificate.pem").read_bytes(), keys.load_private(folder / "key.pem"))


def _replace_changed(path: Path, content: bytes) -> None:
    """Write the file where it does not hold `content` already."""
    if not path.exists() or path.read_bytes() != content:
        replace_durably(path, content)


def _load_bounded(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except OSError as error:
        msg = f"file {path} cannot be read ({error.strerror}); check its name and permissions"
        raise Misconfigured(Reason.BAD_SETTINGS, msg, path=str(path)) from None
    if len(content) > _MAX_FILE:
        msg = f"file {path} is over {_MAX_FILE} bytes; give a file of certificates or settings"
        raise Misconfigured(Reason.TOO_LARGE, msg, path=str(path))
    return content
