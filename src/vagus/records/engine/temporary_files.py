"""Whether SQLite has a folder for its temporary files; makes none."""

from __future__ import annotations

import os
from pathlib import Path


def has_temporary_folder() -> bool:
    """Whether SQLite finds a folder for temporary files: the first of a fixed list in which it may write.

    With a read-only root file system there may be none. Each larger sort and each statement of several rows then fails
    with "disk I/O error", so connections must keep these in memory (`temp_store`). The list is that of
    https://www.sqlite.org/tempfiles.html section 5.
    """
    named = [os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp", "."]  # noqa: S108
    return any(Path(one).is_dir() and os.access(one, os.W_OK | os.X_OK) for one in named if one)
