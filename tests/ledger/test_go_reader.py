"""Go's sumdb packages, which others wrote and everybody's go command uses, read our published log."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.simulator.log import ORIGIN, LogFixture
from vagus.ledger.append import append
from vagus.ledger.entries import TokenSpent
from vagus.records.engine.writer import Batch

pytestmark = pytest.mark.interop
SIZE = 66_001  # beyond 256 * 256: three levels of tiles


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, built from the packages inside the Go distribution: no download."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go") or shutil.which("/usr/lib/go/bin/go")
    if go is None:
        pytest.skip("no Go toolchain on this machine")
    asked = subprocess.run([go, "env", "GOROOT", "GOVERSION"], capture_output=True, text=True, check=True)
    root, version = asked.stdout.split()[:2]
    language = ".".join(version.removeprefix("go").split(".")[:2])
    packages = Path(root) / "src/cmd/vendor/golang.org/x/mod"
    if not (packages / "sumdb/tlog").is_dir():
        pytest.skip("this Go distribution comes without the source of golang.org/x/mod/sumdb")
    folder = tmp_path_factory.mktemp("go")
    shutil.copytree(packages, folder / "mod")
    (folder / "mod/go.mod").write_text(f"module golang.org/x/mod\n\ngo {language}\n")
    shutil.copy(Path(__file__).with_name("go_reader.go"), folder / "main.go")
    (folder / "go.mod").write_text(
        f"module reader\n\ngo {language}\n\nrequire golang.org/x/mod v0.0.0\n\nreplace golang.org/x/mod => ./mod\n"
    )
    settings = {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "PATH": "/usr/bin:/bin"}
    places = {"GOCACHE": str(folder / "cache"), "GOPATH": str(folder / "path"), "HOME": str(folder)}
    build = [go, "build", "-o", "reader", "."]
    made = subprocess.run(build, cwd=folder, env=settings | places, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"the reader does not build with this Go: {made.stderr.strip()[-300:]}")
    return folder / "reader"


def read(reader: Path, log: LogFixture, seed: int) -> subprocess.CompletedProcess[str]:
    command = [str(reader), str(log.folder), log.publisher().key.encode(), str(seed)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_go_verifies_checkpoint_tree_and_four_hundred_proofs(reader: Path, log: LogFixture, soak_seed: int) -> None:
    def fill(batch: Batch) -> None:
        for number in range(SIZE):
            append(batch, TokenSpent(number.to_bytes(32, "big"), "device:a", bytes(32)))

    log.writer.submit(fill).result(60)
    published = log.publisher().publish()
    found = read(reader, log, soak_seed)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [ORIGIN, str(SIZE), published.root.hex()]

    tile = log.folder / "tile/0/100"
    contents = bytearray(tile.read_bytes())
    contents[5] ^= 1
    tile.write_bytes(contents)
    # each reading draws 400 proofs, and one in five draws none that meets the changed tile
    assert any(read(reader, log, soak_seed + more).returncode == 1 for more in range(20))


def test_go_refuses_a_checkpoint_whose_size_was_changed(reader: Path, log: LogFixture, soak_seed: int) -> None:
    log.note(300)
    log.publisher().publish()
    assert read(reader, log, soak_seed).returncode == 0
    checkpoint = log.folder / "checkpoint"
    checkpoint.write_bytes(checkpoint.read_bytes().replace(b"\n300\n", b"\n299\n"))
    found = read(reader, log, soak_seed)
    assert found.returncode == 1
    assert "invalid signature" in found.stderr
