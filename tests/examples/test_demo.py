from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from examples.demo.plans import BuiltListeners, fleet, write_hospital_plan, write_maker_plan
from examples.demo.rogue import Rogue, look_alike
from examples.demo.stage import REPOSITORY, Broken, Stage, free_ports

from tests.simulator.est_server import HOST, Hierarchy
from tests.simulator.processes import environment
from vagus.policy.plans import HospitalPlan, MakerPlan, load_plan
from vagus.tls import ClientContext, ClientTls

LONGEST_SILENCE = 2.0


def test_the_sixty_devices_stand_in_both_plans(tmp_path: Path) -> None:
    listeners = BuiltListeners.draw()
    write_hospital_plan(tmp_path / "h.toml", listeners)
    write_maker_plan(tmp_path / "m.toml", listeners)
    hospital, maker = load_plan(tmp_path / "h.toml"), load_plan(tmp_path / "m.toml")
    assert isinstance(hospital, HospitalPlan)
    assert isinstance(maker, MakerPlan)
    planned = {(device.unit, device.model, device.maker_serial) for device in hospital.each_device()}
    born = {serial for batch in maker.batches for serial in maker.serials(batch)}
    taking_part = fleet()
    assert len(taking_part) == len({device.serial for device in taking_part}) == 60
    assert {(device.unit, device.model, device.serial) for device in taking_part} <= planned
    assert {device.serial for device in taking_part} <= born
    ports = [listener.port for listener in listeners.hospital_listeners]
    assert [listener.address[1] for listener in hospital.listeners] == ports


def test_the_rogue_counts_what_it_is_given() -> None:
    with Rogue(look_alike(Hierarchy().infrastructure.certificate, HOST)) as rogue:
        stream = ClientContext(ClientTls()).new_stream(HOST)
        with closing(socket.create_connection(("127.0.0.1", rogue.port), timeout=10)) as caller:
            while not stream.handshake():
                caller.sendall(stream.take())
                stream.feed(caller.recv(65536))
            stream.write(b"canary")
            caller.sendall(stream.take())
            answer = None
            while answer is None:
                stream.feed(caller.recv(65536))
                answer = stream.read()
        assert answer.startswith(b"HTTP/1.1 204")
        assert (rogue.calls, rogue.canary_bytes, rogue.certificates) == (1, 6, 0)


def test_the_store_counts_lines_by_device(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    http_port, raw_port = free_ports(2)
    log = tmp_path / "log"
    try:
        command = [sys.executable, "-m", "examples.demo.upstream", str(http_port), str(raw_port)]
        process = stage.start(command, log)
        stage.wait_for_port(http_port, process, log)
        line = json.dumps({"device": "pump"}).encode() + b"\n"
        request = urllib.request.Request(f"http://127.0.0.1:{http_port}/telemetry", line * 2, {"Client-Cert": ":AA=:"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 204
        with closing(socket.create_connection(("127.0.0.1", raw_port), timeout=10)) as raw:
            raw.sendall(line)
            assert raw.recv(10) == b"ok\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/counts", timeout=10) as answer:
            counts = json.load(answer)
    finally:
        stage.clean_up()
    assert counts["lines"] == {"pump": 3}
    assert counts["certified_requests"] == 1
    assert process.poll() is not None


def test_a_check_that_does_not_hold_is_counted(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.check(True, "holds")
    stage.check(False, "does not", "why")
    assert (stage.checked, stage.failed) == (2, ["does not"])
    done = stage.agent(
        "enrol", "--state", str(tmp_path / "device"), "--token", "env:ENROLMENT_TOKEN", ENROLMENT_TOKEN=""
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("BAD_ARGUMENT: the enrolment token has 0 characters")
    assert stage.vagus(tmp_path, "--version").startswith("vagus ")
    with pytest.raises(Broken, match="exit code 2, not 0"):
        stage.vagus(tmp_path / "none", "doctor")
    assert time.monotonic() >= stage.began


@pytest.mark.process
def test_the_demonstration_is_never_silent_for_long_and_ends_with_what_it_has_shown(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.demo", "--keep", str(tmp_path / "played")]
    gaps, lines, before = [], [], time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment()) as played:
        assert played.stdout is not None
        for line in played.stdout:
            lines.append(line.rstrip())
            gaps.append((time.monotonic() - before, line))
            before = time.monotonic()
            if "checks held in" in line:
                break  # it ends its processes after this line
        played.stdout.read()
    assert played.returncode == 0, lines[-20:]
    assert max(gaps)[0] <= LONGEST_SILENCE, max(gaps)
    shown = lines[lines.index("What this has shown:") + 1 :]
    proven = [line for line in shown if line.startswith("  yes ")]
    assert len(proven) == len([line for line in lines if line.startswith("[")]) == 11
    assert not [line for line in shown if line.startswith("  no ")]


def test_a_long_act_is_reported_while_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage(tmp_path)
    stage.chapter("A part", "it is proven")
    with stage.doing(lambda: "a nap"):
        time.sleep(2.5)
    stage.check(True, "holds")
    stage.check(False, "does not")
    stage.summarise()
    stage.clean_up()
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if "a nap, " in line]) == 2
    assert "  no  it is proven (1 of 2 checks)" in said
    assert said[-1].startswith("1 of 2 checks held in ")
