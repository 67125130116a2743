"""Plans as people write them: a byte order mark, unseen characters, IPv6 addresses, no temporary folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.cases.case import Case, Check, Observation
from tests.cases.workshop import Workshop
from tests.simulator.commands import ENVIRONMENT, SOURCE
from tests.simulator.processes import SOURCES, agent, serving

BOM = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_TITLE = re.compile(rb'title = "')


def _plans(case: Case) -> dict[str, bytes]:
    """The files that hold a hospital's plan, in whatever encoding."""
    return {name: raw for name, raw in case.matching(".toml").items() if b"hospitals" in raw.replace(b"\0", b"")}


def _plain(case: Case) -> dict[str, bytes]:
    return {name: raw for name, raw in _plans(case).items() if not raw.startswith((BOM, *_WIDE))}


def _check(workshop: Workshop, folder: Path, raw: bytes) -> tuple[int, str]:
    file = workshop.scratch() / "plan.toml"
    file.write_bytes(raw)
    outcome = workshop.vagus("plan", "check", str(file), folder=folder)
    return outcome.code, outcome.err


def _begin(workshop: Workshop) -> Path:
    folder = workshop.scratch() / "installation"
    outcome = workshop.vagus("init", "--unsafe-fast-kdf", "--origin", "log.cases", folder=folder)
    assert outcome.code == 0, outcome.err
    return folder


def _observe_encodings(case: Case, workshop: Workshop) -> Iterator[Observation]:
    folder = _begin(workshop)
    for name, raw in _plans(case).items():
        is_wide = raw.startswith(_WIDE)
        code, err = _check(workshop, folder, raw)
        is_right = (code == 2 and "UTF-16" in err) if is_wide else code == 0
        yield Observation(name, f"{code} {err[:200]}", "names UTF-16" if is_wide else "taken", is_right)
        if is_wide:
            continue
        plain = raw.removeprefix(BOM)
        for twin, right in ((plain, 0), (BOM + plain, 0), (BOM + BOM + plain, 2)):
            code, err = _check(workshop, folder, twin)
            yield Observation(f"{name}, {twin[:6].hex()}", f"{code} {err[:200]}", str(right), code == right)
        for unseen in ("\u202e", "\u2066", "\u200b", "\u00ad", "\u3164"):
            code, err = _check(workshop, folder, _TITLE.sub(f'title = "{unseen}x '.encode(), plain, count=1))
            is_right = code == 2 and f"U+{ord(unseen):04X}" in err
            yield Observation(f"a title with U+{ord(unseen):04X}", f"{code} {err[:200]}", "refused by name", is_right)
        code, err = _check(workshop, folder, _TITLE.sub('title = "é 病院 '.encode(), plain, count=1))
        yield Observation("a title of other scripts", f"{code} {err[:200]}", "taken", code == 0)


def _found(workshop: Workshop, raw: bytes, address: str = "") -> Path:
    """An installation with this plan; its listeners are on free ports of their hosts, or of `address`."""
    folder = _begin(workshop)
    file = workshop.scratch() / "plan.toml"
    moved = re.sub(rb'address = "([^"]*):[0-9]+"', rb'address = "' + (address.encode() or rb"\1") + rb':0"', raw)
    file.write_bytes(moved)
    outcome = workshop.vagus("plan", "apply", str(file), "--yes", "--ceremony", folder=folder)
    assert outcome.code == 0, outcome.err
    return folder


def _observe_addresses(case: Case, workshop: Workshop) -> Iterator[Observation]:
    for name, raw in _plain(case).items():
        for address, form in (("", r"\[::1\]:[0-9]+"), ("127.0.0.1", r"127\.0\.0\.1:[0-9]+")):
            folder = _found(workshop, raw, address)
            with serving(folder, "--issue-for", "all", "--passphrase-source", SOURCE, around=ENVIRONMENT) as served:
                listeners = served.ready["listeners"]
                is_right = all(re.fullmatch(form, one) for one in listeners.values())
                yield Observation(f"{name}: the ready line", str(listeners), form, is_right)
                status = next(one["name"] for one in _tables(raw) if one["kind"] == "status")
                outcome = workshop.vagus("doctor", "--status-address", listeners[status], folder=folder)
                yield Observation("the address as input", outcome.err[:200], "read", outcome.code in {0, 1})
            # the process has ended: the agent names the address that it cannot reach
            where, anchors = listeners[status], workshop.scratch() / "anchors.pem"
            anchors.write_text(workshop.vagus("ca", "export", "root", folder=folder).out)
            route = f"enrol.example={where}"
            token = workshop.scratch() / "token"
            token.write_text("a token")
            token.chmod(0o600)
            words = ("--server", route, "--anchors", str(anchors), "--token", f"file:{token}")
            _, said = agent(workshop.scratch() / "device", "enrol", *words, "--category", "infusion-pump")
            yield Observation("what the agent says", said[-300:], f"names {route}", route in said)


def _tables(raw: bytes) -> list[dict[str, str]]:
    tables: list[dict[str, str]] = tomllib.loads(raw.decode())["listeners"]
    return tables


_PROBE = """
import sys
from pathlib import Path
from vagus.wiring import Installation
with Installation.open(Path(sys.argv[1])) as opened:
    with opened.database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE big (n INTEGER, t TEXT)")
        many = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 300000)"
        connection.exec_driver_sql(f"INSERT INTO big {many} SELECT n, hex(randomblob(40)) FROM c")
        connection.exec_driver_sql("CREATE INDEX big_t ON big (t)")
        connection.exec_driver_sql("SELECT t FROM big ORDER BY t || 'x'").fetchall()
print("sorted")
"""


def _observe_no_temporary_folder(case: Case, workshop: Workshop) -> Iterator[Observation]:
    for name, raw in _plain(case).items():
        folder = _found(workshop, raw, "127.0.0.1")
        for is_read_only in (True, False):
            seen = _sort(folder, is_read_only=is_read_only)
            where = "a read-only root" if is_read_only else "a root that is written"
            yield Observation(f"{name}: {where}", seen[-300:], "sorted", "sorted" in seen)


def _sort(folder: Path, *, is_read_only: bool) -> str:
    """What a large sort in the installation's database says, where only its folder may be written."""
    copy = Path(shutil.copytree(folder, folder.with_name(f"copy-{is_read_only}")))
    box = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", str(copy), str(copy)]
    command = [*(box if is_read_only else []), sys.executable, "-c", _PROBE, str(copy)]
    around = {"PYTHONPATH": os.pathsep.join(SOURCES), "PATH": os.environ["PATH"]}
    ran = subprocess.run(command, env=around, cwd="/", capture_output=True, text=True, timeout=120, check=False)
    return ran.stdout + ran.stderr


def _names_ipv6(case: Case) -> bool:
    return any(b'"[' in raw for raw in _plain(case).values())


CHECKS = (
    Check("encodings of plans", lambda case: len(_plain(case)) < len(_plans(case)), _observe_encodings),
    Check("addresses of listeners", _names_ipv6, _observe_addresses),
    Check("no temporary folder", lambda case: bool(_plain(case)), _observe_no_temporary_folder),
)
