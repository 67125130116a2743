"""Java's keytool reads what `vagus ca export` writes for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulator.programs import succeed
from tests.simulator.relying import Hospital

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(("choice", "count"), [(("--roots",), 1), (("h1/icu", "--chain"), 3)], ids=["roots", "chain"])
def test_a_truststore_holds_trusted_entries_under_the_names_of_authorities(
    hospital: Hospital, tmp_path: Path, choice: tuple[str, ...], count: int
) -> None:
    store = tmp_path / "trust.p12"
    hospital.vagus("ca", "export", *choice, "--form", "truststore", "--out", str(store))
    told = succeed("keytool", "-list", "-keystore", store, "-storepass", "changeit")
    assert told.text.count("trustedCertEntry") == count, told.text
    told.must_say("root#1", f"{count} entr")


def test_a_p7b_is_read_whole(hospital: Hospital, tmp_path: Path) -> None:
    bundle = tmp_path / "h1.p7b"
    hospital.vagus("ca", "export", "--hospital", "h1", "--form", "p7b", "--out", str(bundle))
    assert succeed("keytool", "-printcert", "-file", bundle).text.count("Owner: ") == 7
