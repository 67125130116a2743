from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

from examples.demo.plans import BuiltListeners, fleet, write_hospital_plan, write_maker_plan
from examples.demo.rogue import Rogue, look_alike
from examples.demo.stage import Stage, free_ports

from tests.simulator.est_server import HOST, Hierarchy
from vagus.policy.plans import HospitalPlan, MakerPlan, load_plan
from vagus.tls import ClientContext, ClientTls


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
    done = stage.run([sys.executable, "-c", "import os; print(os.environ['X'])"], X="y")
    assert isinstance(done, subprocess.CompletedProcess)
    assert done.stdout == "y\n"
    assert time.monotonic() >= stage.began
