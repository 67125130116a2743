"""An installation's `vagus.toml` as frozen values, and the layout of its folder; opens and constructs nothing."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from vagus.durable_files import create_file, replace_durably, sync_file
from vagus.errors import Conflict, Malformed, Misconfigured, Unavailable
from vagus.policy.documents import Document, decode_document, read_document
from vagus.policy.packs import find_shipped
from vagus.policy.plan_files import Address
from vagus.reasons import Reason

FILE_NAME = "vagus.toml"

_ORIGIN = re.compile(r"[a-z0-9][a-z0-9.-]{0,120}(?:/[a-z0-9._-]{1,60})*\Z")
_ORIGIN_LINE = re.compile(r"""(?m)^(\s*origin\s*=\s*)(?:"[^"\n]*"|'[^'\n]*')""")
_DATABASE_LINE = re.compile(r"""(?m)^(\s*database\s*=\s*)(?:"[^"\n]*"|'[^'\n]*')""")
_DATABASE = re.compile(r"(?:sqlite:///[^?#]+|postgresql\+psycopg://\S+)\Z")


def _origin(text: str) -> str:
    if not _ORIGIN.match(text):
        raise ValueError(
            f"{text[:80]!r} is no log origin such as log.hospital.example/vagus; use lower case and no spaces"
        )
    return text


def _database(text: str) -> str:
    if not _DATABASE.match(text):
        raise ValueError("the database is not written sqlite:///file or postgresql+psycopg://...; write one of the two")
    return text


class _InstallationTable(Document):
    """What the installation is, and where its data are."""

    kind: Literal["hospital", "maker"]
    """Kind of installation. Chosen once."""
    origin: Annotated[str, AfterValidator(_origin)]
    """Name of the ledger in its checkpoints, as in `log.hospital.example/vagus`. Chosen once."""
    database: Annotated[str, AfterValidator(_database)] = "sqlite:///vagus.sqlite3"
    """`sqlite:///FILE` beside this file, or `postgresql+psycopg://USER@HOST/NAME?...`."""
    policy_pack: str | None = None
    """A shipped policy pack by its name, or your own as a path relative to this file; absent: `iob-2026`."""


class _KeystoreTable(Document):
    """How private keys are sealed."""

    kdf: Literal["scrypt", "pbkdf2"] = "scrypt"
    """Key derivation of keystores that are made, or get another passphrase, from now on; `pbkdf2` at FIPS sites."""
    unsafe_fast: bool = False
    """Weak key derivation, for tests and demonstrations only; `vagus doctor` reports it."""


class ServeSettings(Document):
    """Bounds of the serving process; times in seconds."""

    handshake_seconds: Annotated[float, Field(gt=0, le=120)] = 10.0
    """A TLS handshake takes no longer."""
    header_seconds: Annotated[float, Field(gt=0, le=120)] = 10.0
    """A request header is complete within this time."""
    stall_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """A peer that sends or takes nothing for so long is closed."""
    body_octets_per_second: Annotated[float, Field(gt=0, le=1_000_000)] = 100.0
    """Bytes a second. A request body that comes more slowly is given up after a minute in all."""
    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """Open connections of the process."""
    connections_per_source: Annotated[int, Field(ge=1, le=1_000_000)] = 2_000
    """Open connections from one address."""
    sequence_bound_seconds: Annotated[float, Field(gt=0, le=60)] = 2.0
    """Without the revocation sequence for longer, gateways apply the fail mode and OCSP says tryLater."""
    overload_seconds: Annotated[float, Field(gt=0, le=60)] = 0.25
    """OCSP requests that need a signature get tryLater while the event loop is later than this."""
    addresses: dict[str, Address] = Field(default_factory=dict)
    """Listener name to the host:port that replaces the plan's."""
    health: Address | None = None
    """host:port of `/health` and `/metrics`; absent: none. Keep it private."""
    probe: Literal["listener", "url", "off"] = "listener"
    """Where the prober fetches what is published: at the own listener, at the status URL, or nowhere."""
    probe_seconds: Annotated[float, Field(ge=1, le=3600)] = 60.0
    """How often the prober fetches."""


class _SettingsFile(Document):
    """The whole file."""

    format: Literal[1]
    """Version of this form."""
    installation: _InstallationTable
    """What the installation is."""
    keystore: _KeystoreTable = _KeystoreTable()
    """How private keys are sealed."""
    serve: ServeSettings = ServeSettings()
    """The serving process."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `vagus.toml` says, with the folder that holds the file."""

    folder: Path
    kind: str  # kind of installation: hospital or maker
    origin: str  # origin line of the ledger's checkpoints
    database_url: str
    policy_pack: Path | None  # the file of the policy pack; None: the shipped iob-2026
    kdf: Literal["scrypt", "pbkdf2"]
    unsafe_fast_kdf: bool  # weak key derivation for tests and demonstrations only; `vagus doctor` reports it
    serve: ServeSettings

    @property
    def keystores(self) -> Path:
        """One folder per authority, and `log`, `gate`."""
        return self.folder / "keystores"

    @property
    def requests(self) -> Path:
        """Certificate requests that wait for a ceremony or for a CA elsewhere."""
        return self.folder / "requests"

    @property
    def published(self) -> Path:
        """What a static file server may hand out: CRLs and CA certificates. A link where the folder lies elsewhere."""
        return self.folder / "published"

    @property
    def log(self) -> Path:
        """The ledger's tiles and its newest checkpoint."""
        return self.folder / "log"

    @property
    def backups(self) -> Path:
        """Where `backup` writes by default."""
        return self.folder / "backups"

    @property
    def log_key(self) -> Path:
        """The ledger's verifier key (C2SP vkey); public."""
        return self.folder / "log.vkey"

    @property
    def plan(self) -> Path:
        """The plan as it was last applied."""
        return self.folder / "plan.toml"

    @property
    def own_policy_pack(self) -> Path | None:
        """The policy pack's file where it belongs to this installation; None for a shipped one."""
        pack = self.policy_pack
        return None if pack is None or pack == find_shipped(pack.stem) else pack

    @property
    def database_file(self) -> Path | None:
        """The SQLite file; None for a database server."""
        if not self.database_url.startswith("sqlite:///"):
            return None
        return Path(self.database_url.removeprefix("sqlite:///"))

    def check_database_file(self) -> None:
        """Raises Misconfigured(BAD_SETTINGS) where there is no such file: SQLite would begin an empty one."""
        file = self.database_file
        if file is None or file.exists():
            return
        msg = (
            f"{self.folder / FILE_NAME}: installation.database names {file}, which does not exist; correct the "
            "path, or bring the database back (vagus restore)"
        )
        raise Misconfigured(Reason.BAD_SETTINGS, msg, path=str(file))


def load_settings(folder: Path) -> Settings:
    """The settings of the installation in `folder`.

    Raises Misconfigured(BAD_SETTINGS) naming file, key and remedy.
    """
    file = folder / FILE_NAME
    if not file.exists():
        msg = f"{file}: there is no installation here; run `vagus --dir {folder} init` or name another folder"
        raise Misconfigured(Reason.BAD_SETTINGS, msg, file=str(file))
    return decode_settings(read_document(file, Reason.BAD_SETTINGS), folder)


def decode_settings(raw: bytes, folder: Path) -> Settings:
    """The settings in the bytes of a `vagus.toml` of `folder`. Raises Misconfigured(BAD_SETTINGS)."""
    said = decode_document(raw, str(folder / FILE_NAME), _SettingsFile, Reason.BAD_SETTINGS)
    pack = said.installation.policy_pack
    return Settings(
        folder=folder,
        kind=said.installation.kind,
        origin=said.installation.origin,
        database_url=_absolute(said.installation.database, folder),
        policy_pack=find_shipped(pack) or folder / pack if pack else None,
        kdf=said.keystore.kdf,
        unsafe_fast_kdf=said.keystore.unsafe_fast,
        serve=said.serve,
    )


def _absolute(database: str, folder: Path) -> str:
    if not database.startswith("sqlite:///"):
        return database
    return "sqlite:///" + str((folder / database.removeprefix("sqlite:///")).absolute())


def write_settings(
    folder: Path,
    *,
    kind: str,
    origin: str,
    database: str,
    policy_pack: str | None = None,
    kdf: str = "scrypt",
    unsafe_fast_kdf: bool = False,
) -> Settings:
    """Begin an installation: the folder (0700), its settings (0600) and nothing else.

    Raises Misconfigured(BAD_SETTINGS) for a value that `vagus.toml` does not allow, Conflict(ALREADY_EXISTS) when the
    folder has one, Malformed(BAD_ARGUMENT) for a folder that cannot be written, and
    Unavailable(DATABASE_UNAVAILABLE) when the disk is full or fails.
    """
    text = _TEMPLATE.format(
        kind=_quoted(kind),
        origin=_quoted(origin),
        database=_quoted(database),
        policy_pack=_NO_PACK if policy_pack is None else f"policy_pack = {_quoted(policy_pack)}",
        kdf=_quoted(kdf),
        unsafe_fast="unsafe_fast = true   # weak on purpose: tests and demonstrations only\n"
        if unsafe_fast_kdf
        else "",
    )
    settings = decode_settings(text.encode(), folder)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        with create_file(folder / FILE_NAME) as stream:
            stream.write(text.encode())
            sync_file(stream)
    except FileExistsError as fault:
        if not folder.is_dir():
            msg = f"{folder} is not a folder; name another folder for the installation"
            raise Malformed(Reason.BAD_ARGUMENT, msg, file=str(folder)) from fault
        msg = f"{folder / FILE_NAME} exists already; use that installation or name another folder"
        raise Conflict(Reason.ALREADY_EXISTS, msg, file=str(folder / FILE_NAME)) from fault
    except OSError as fault:
        if fault.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
            msg = f"folder {folder}: the disk fails ({fault.strerror}); make room on it, or name one on another disk"
            raise Unavailable(Reason.DATABASE_UNAVAILABLE, msg, file=str(folder)) from fault
        msg = f"folder {folder} cannot be written ({fault.strerror}); name a folder that this user owns"
        raise Malformed(Reason.BAD_ARGUMENT, msg, file=str(folder)) from fault
    return settings


def rename_log(settings: Settings, origin: str) -> None:
    """Write another `origin` into the settings' file, which is replaced as a whole and otherwise left as it is.

    Raises Misconfigured(BAD_SETTINGS) for a name that settings do not allow.
    """
    replace_durably(settings.folder / FILE_NAME, _with_line(settings, "origin", _ORIGIN_LINE, origin)[0])


def encode_with_database(settings: Settings, database: str) -> tuple[bytes, Settings]:
    """The settings' file with another database and otherwise as it is, and what it says then; writes nothing.

    Raises Misconfigured(BAD_SETTINGS) for a database that settings do not allow.
    """
    return _with_line(settings, "database", _DATABASE_LINE, database)


def _with_line(settings: Settings, key: str, line: re.Pattern[str], value: str) -> tuple[bytes, Settings]:
    file = settings.folder / FILE_NAME
    before = file.read_text("utf-8")
    raw = line.sub(lambda found: found[1] + _quoted(value), before, count=1).encode()
    changed = decode_settings(raw, settings.folder)
    wanted = value if key == "origin" else _absolute(value, settings.folder)
    if (changed.origin if key == "origin" else changed.database_url) != wanted:
        msg = f"{file}: installation.{key} is written in a form that is not replaced; set it to {value} by hand"
        raise Misconfigured(Reason.BAD_SETTINGS, msg, file=str(file), key=f"installation.{key}")
    return raw, changed


def _quoted(text: str) -> str:
    """A TOML basic string; control characters are left to the reader to refuse."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_NO_PACK = '# policy_pack = "our-pack.toml"'
_TEMPLATE = """\
# The settings of this installation. Every key is checked at each start; unknown keys are refused.
format = 1

[installation]
kind = {kind}                     # hospital or maker; chosen once
origin = {origin}                 # name of the ledger in its checkpoints; chosen once
database = {database}             # sqlite:///file beside this one, or postgresql+psycopg://...
{policy_pack}   # instead of the shipped iob-2026, whose OID arc is not for production

[keystore]
kdf = {kdf}                       # scrypt, or pbkdf2 where FIPS 140 is asked for
{unsafe_fast}
[serve]
handshake_seconds = 10.0
header_seconds = 10.0
stall_seconds = 60.0
body_octets_per_second = 100.0    # a request body that trickles more slowly is given up after a minute
connections = 20000
connections_per_source = 2000
sequence_bound_seconds = 2.0      # a gateway that lost the revocation sequence for longer applies the fail mode
# health = "127.0.0.1:9470"       # /health and /metrics for operators
# probe = "url"                   # fetch what is published where certificates say it is, not at our own listener
"""
