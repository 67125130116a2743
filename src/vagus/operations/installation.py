"""The installation itself: its beginning, its policy pack, its export and the upgrade of its database."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from vagus.components import CHECKPOINT_KEY, LOG_KEYSTORE, Components
from vagus.durable_files import GROUP_FILE, replace_durably
from vagus.keystore.signing import Purpose
from vagus.ledger.append import append
from vagus.ledger.entries import PolicyAdopted
from vagus.operations.acts import Acts
from vagus.operations.roles import Act, check_may
from vagus.records.engine.database import SCHEMA
from vagus.records.installation import InstallationRow, insert_installation, set_policy
from vagus.records.log import load_head
from vagus.records.plan_rows import export_rows
from vagus.settings import FILE_NAME, Settings
from vagus.tlog.checkpoint import NoteKey
from vagus.x509.algorithms import KeyAlgorithm

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
