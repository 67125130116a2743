"""Plays a demonstration in a folder, cleans up whatever happens, and gives the exit code."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from examples.demo.stage import Broken, Stage


def perform(play: Callable[[Stage], None], keep: Path | None) -> int:
    """Play in the folder `keep`, which stays, or in a scratch folder, which is removed.

    Gives 0 when every check held, otherwise 1. SIGTERM ends the play as Ctrl-C does.
    """
    signal.signal(signal.SIGTERM, _stop)
    folder = keep or Path(tempfile.mkdtemp(prefix="vagus-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    stage = Stage(folder)
    try:
        play(stage)
    except Broken as error:
        stage.check(False, "the demonstration came to its end", error)
    except KeyboardInterrupt:
        stage.failed.append("interrupted")
    finally:
        stage.clean_up()
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    if stage.failed:
        print(f"\n{len(stage.failed)} of {stage.checked} checks did not hold: " + "; ".join(stage.failed))
    return 1 if stage.failed else 0


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
