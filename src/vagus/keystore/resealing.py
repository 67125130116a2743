"""Changes the passphrase of a keystore folder; after a power cut it opens with the old one or the new one, never none.

1. Each key is sealed under the new passphrase into a file beside its own (`<key id>.key.next`), with its bytes on the
   disk.
2. `keystore.toml` is replaced in one step. From here on the new passphrase opens the keystore, and the old one no more.
3. Each new file takes the place of the old one.

A crash before step 2 leaves files that the next change removes. A crash after it leaves keys under the old passphrase
beside the new files, which `SoftwareKeystore` then reads; the next change or `finish` completes the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vagus.durable_files import replace_durably, sync_folder
from vagus.errors import IntegrityFailure
from vagus.keystore.software import NEXT, SoftwareKeystore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vagus.keystore.passphrases import Passphrase
    from vagus.keystore.sealing import Derivation
    from vagus.keystore.software import Derive


def change_passphrase(
    keystore: SoftwareKeystore,
    passphrase: Passphrase,
    derivation: Derivation,
    *,
    derive: Derive,
    kill_points: Callable[[str], None] = lambda _: None,
) -> SoftwareKeystore:
    """The keystore under its new passphrase, on the disk. For one process at a time.

    `kill_points` is called with "sealed", "changed" and "replaced" after the steps. Raises, with the keystore as it
    was: Misconfigured(BAD_SETTINGS: passphrase short), IntegrityFailure(KEYSTORE_DAMAGED), OSError.
    """
    passphrase.check_length()
    keystore.check_unchanged()
    finish(keystore)
    changed = keystore.resealed(derivation, derive(derivation, passphrase))
    folder = keystore.folder
    try:
        # 1. Seal each key anew, beside the file that holds it.
        for path in _key_files(keystore):
            replace_durably(_next_of(path), keystore.transcribe(path, changed))
    except BaseException:
        for path in _key_files(keystore):
            _next_of(path).unlink(missing_ok=True)
        raise
    kill_points("sealed")
    # 2. Make the new passphrase the one that opens the keystore.
    replace_durably(folder / "keystore.toml", changed.encode_settings())
    kill_points("changed")
    # 3. Replace the key files. A key that another process added since step 1 is under the old passphrase, or the new.
    for path in _key_files(keystore):
        if not _next_of(path).exists() and not _opens(changed, path):
            replace_durably(_next_of(path), keystore.transcribe(path, changed))
        if _next_of(path).exists():
            _next_of(path).replace(path)
        kill_points("replaced")
    sync_folder(folder)
    return changed


def finish(keystore: SoftwareKeystore) -> None:
    """Complete or take back what an interrupted change left in this keystore, which is open."""
    for path in _key_files(keystore):
        left = _next_of(path)
        if not left.exists():
            continue
        if _opens(keystore, left):
            left.replace(path)
        else:
            left.unlink()
    sync_folder(keystore.folder)


def _opens(keystore: SoftwareKeystore, path: Path) -> bool:
    try:
        keystore.transcribe(path, keystore)
    except IntegrityFailure:
        return False
    return True


def _key_files(keystore: SoftwareKeystore) -> list[Path]:
    return [keystore.folder / f"{key_id}.key" for key_id in keystore.key_ids()]


def _next_of(path: Path) -> Path:
    return path.with_name(path.name + NEXT)
