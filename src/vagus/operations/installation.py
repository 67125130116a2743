"""The installation itself: its beginning, its policy pack, its export and the upgrade of its database."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vagus.components import CHECKPOINT_KEY, LOG_KEYSTORE, Components
from vagus.durable_files import GROUP_FILE, replace_durably
from vagus.keystore.signing import Purpose
from vagus.ledger.append import append
from vagus.ledger.entries import PolicyAdopted
from vagus.operations.acts import Acts
from vagus.operations.doctor.findings import some_of
from vagus.operations.roles import Act, check_may
from vagus.records.authorities import ACTIVE, REQUESTED, AuthorityRow, list_authorities
from vagus.records.engine.database import SCHEMA
from vagus.records.installation import InstallationRow, insert_installation, set_policy
from vagus.records.log import load_head
from vagus.records.plan_rows import export_rows
from vagus.settings import FILE_NAME, Settings
from vagus.tlog.checkpoint import NoteKey
from vagus.x509.algorithms import POST_QUANTUM, KeyAlgorithm
from vagus.x509.certificates import decode_certificate
from vagus.x509.keys import read_key_algorithm
from vagus.x509.requests import decode_request

if TYPE_CHECKING:
    from vagus.operations.actor import Actor
    from vagus.records.engine.writer import Batch


class InstallationActs(Acts):
    """What an operator may do with the installation itself."""

    def begin(self, actor: Actor) -> None:
        """Make database, checkpoint key and the ledger's first entry, after its settings were written."""
        check_may(actor, Act.BEGIN_INSTALLATION)
        origin = self.components.settings.origin
        self.components.database.create()
        first = InstallationRow(origin, int(self.components.clock.now().timestamp()), self.components.entropy(32))
        keystore = self.components.keystore_or_new(LOG_KEYSTORE)
        keystore.generate(CHECKPOINT_KEY, KeyAlgorithm.ED25519, {Purpose.CHECKPOINT}, f"log:{origin}")
        self.components.writer.submit(lambda batch: insert_installation(batch.connection, first)).result()
        adopt_policy(self.components, actor)
        key = NoteKey.of_spki(origin, keystore.load(CHECKPOINT_KEY).spki_der)
        replace_durably(self.components.settings.log_key, (key.encode() + "\n").encode(), GROUP_FILE)

    def adopt_policy(self, actor: Actor) -> bool:
        """As the function `adopt_policy`, for a process that serves."""
        check_may(actor, Act.ADOPT_POLICY)
        return adopt_policy(self.components, actor)

    def export(self, actor: Actor) -> dict[str, object]:
        """Everything that a plan describes, and the ledger's size and root, as plain values."""
        check_may(actor, Act.EXPORT_INSTALLATION)
        with self.components.database.reading() as connection:
            head = load_head(connection)
            rows: dict[str, object] = dict(export_rows(connection))
        return {**rows, "ledger": {"size": head.size, "root": head.root.hex()}}

    def upgrade(self, actor: Actor) -> str:
        """Bring the database of an older release to this one; gives the schema that it has then."""
        check_may(actor, Act.UPGRADE_INSTALLATION)
        self.components.database.upgrade()
        return SCHEMA


def adopt_policy(components: Components, actor: Actor) -> bool:
    """Write into the ledger which policy pack is in force, where it is another than before; whether it was."""
    pack = components.pack
    digest = bytes.fromhex(pack.sha256)
    if components.row.policy_sha256 == digest:
        return False

    def act(batch: Batch) -> None:
        set_policy(batch.connection, digest)
        append(batch, PolicyAdopted(pack.name, pack.version, digest, actor.id))

    components.writer.submit(act).result()
    return True


@dataclass(frozen=True, slots=True)
class OtherKey:
    """An authority whose key is of another kind than the policy pack gives to new ones."""

    reference: str
    has: KeyAlgorithm
    wanted: KeyAlgorithm

    @property
    def is_classical(self) -> bool:
        """Whether the pack asks for a post-quantum key and this is none."""
        return self.wanted in POST_QUANTUM and self.has not in POST_QUANTUM

    def __str__(self) -> str:
        return f"{self.reference} ({self.has}, not {self.wanted})"


def find_other_keys(components: Components) -> tuple[OtherKey, ...]:
    """Every such authority in the order in which they were made, by its newest generation."""
    newest: dict[str, AuthorityRow] = {}
    with components.database.reading() as connection:
        for row in list_authorities(connection):
            if row.state in {ACTIVE, REQUESTED}:
                newest[row.name] = row
    found = []
    for row in newest.values():
        wanted = components.pack.authorities.of_kind(row.kind, is_maker=components.settings.kind == "maker")
        if row.certificate_der is not None:
            has = read_key_algorithm(decode_certificate(row.certificate_der).spki_der)
        else:
            has = decode_request(row.request_der or b"").public_key.algorithm
        if has is not wanted.key_algorithm:
            found.append(OtherKey(row.reference, has, wanted.key_algorithm))
    return tuple(found)


def describe_adoption(components: Components) -> tuple[str, ...]:
    """What will change, and what will not, when the policy pack in use is adopted; nothing where it is in force."""
    pack = components.pack
    if components.row.policy_sha256 in {None, bytes.fromhex(pack.sha256)}:
        return ()
    keys, other = pack.service_keys, [str(one) for one in find_other_keys(components)]
    adopted = (
        f"policy pack {pack.name} {pack.version} is adopted by plan apply and by serve; it holds for what is made from "
        "then on, and certificates and keys that exist stay as they are"
    )
    changed = (
        f"listeners have {keys.listener} keys from the next start of vagus serve on, OCSP responders "
        f"{keys.ocsp_responder} keys from their next renewal on"
    )
    kept = (
        "authorities keep their keys until each is rolled, from the root down (vagus ca roll NAME, then vagus "
        f"ceremony; a new root is a new anchor for everybody): {some_of(other)}"
    )
    return (adopted, changed, kept) if other else (adopted, changed)


def take_back(settings: Settings) -> None:
    """Remove what a failed `begin` made, so that the same command can be given again; foreign files stay."""
    shutil.rmtree(settings.keystores, ignore_errors=True)
    made = [settings.folder / FILE_NAME, settings.log_key]
    if (file := settings.database_file) is not None and file.parent == settings.folder.absolute():
        made += [file, *(file.with_name(file.name + suffix) for suffix in ("-wal", "-shm"))]
    for path in made:
        path.unlink(missing_ok=True)
    with suppress(OSError):
        settings.folder.rmdir()
