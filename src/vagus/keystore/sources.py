"""Which passphrase opens which keystore, from the sources that an operator named; keeps no key and opens no folder."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from vagus.errors import Malformed, Unavailable
from vagus.keystore.passphrases import Passphrase, read_passphrase
from vagus.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORMS = ("fd:", "file:", "env:")


class PassphraseSources:
    """`fd:3` speaks for every keystore, `h1/icu=file:/run/icu` for one; each source is read once, when first asked."""

    def __init__(self, sources: Sequence[str]) -> None:
        """Raises Malformed(BAD_ARGUMENT) for two sources of one keystore; sources themselves are read later."""
        self._sources: dict[str | None, str] = {}
        self._read: dict[str, Passphrase] = {}
        self._turn = threading.Lock()
        for text in sources:
            name, is_named, place = text.partition("=")
            key, source = (name, place) if is_named and not text.startswith(_FORMS) else (None, text)
            if key in self._sources:
                whose = "every keystore" if key is None else f"keystore {key}"
                raise Malformed(Reason.BAD_ARGUMENT, f"two passphrase sources are given for {whose}; give one of them")
            self._sources[key] = source

    @property
    def is_empty(self) -> bool:
        """Whether no source was named at all."""
        return not self._sources

    def find(self, name: str) -> Passphrase | None:
        """The passphrase of the keystore `name` ("h1/icu", "log"); None when no source speaks for it.

        Raises as `read_passphrase`.
        """
        source = self._sources.get(name, self._sources.get(None))
        if source is None:
            return None
        with self._turn:
            if source not in self._read:
                self._read[source] = read_passphrase(source)
            return self._read[source]

    def get(self, name: str) -> Passphrase:
        """The passphrase of the keystore `name`. Raises Unavailable(KEY_NOT_OPEN) when no source speaks for it."""
        found = self.find(name)
        if found is None:
            msg = f"no passphrase source for keystore {name}; give --passphrase-source fd:N, file:PATH or env:NAME"
            raise Unavailable(Reason.KEY_NOT_OPEN, msg, keystore=name)
        return found
