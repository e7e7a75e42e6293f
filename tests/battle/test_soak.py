"""Many battles, every file of which is read back."""

import json
import signal

import pytest

from battle import soak
from battle.sample import FORMATS
from tests.data.shared import shared_folder


@pytest.mark.parametrize(
    "battle_format",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("gen2ou", "gen3ou", "gen4ou", "gen7ou")),
        "gen9randombattle",
    ],
)
def test_soak(simulator, tmp_path, battle_format):
    findings = soak.soak(simulator, battle_format, 20, tmp_path)
    assert findings.sound, findings.report()
    assert findings.files == 40
    assert findings.states > 500


@pytest.mark.slow
def test_a_stopped_soak_plays_out_what_is_under_way_and_leaves_no_report(monkeypatch, capsys, tmp_path):
    examine = soak.examine

    def tells(outcome, recorder, encoder, findings):
        if findings.battles == 0:
            signal.raise_signal(signal.SIGINT)
        examine(outcome, recorder, encoder, findings)

    monkeypatch.setattr(soak, "examine", tells)
    place = tmp_path / "soak.json"
    command = ["--battles", "500", "--formats", "gen1ou", "gen9ou", "--json", str(place)]
    assert soak.main(command) == 130
    found, last = capsys.readouterr().out.strip().splitlines()
    assert list(json.loads(found)) == ["gen1ou"]
    assert 1 <= json.loads(found)["gen1ou"]["battles"] <= 40
    assert last == f"stopped: these battles were played out, and no others; no {place}"
    assert not place.exists()


def test_soak_of_a_format_that_is_none_says_so(capsys):
    assert soak.main(["--battles", "2", "--formats", "gen99ou"]) == 1
    assert capsys.readouterr().err.startswith("error: format 'gen99ou'")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_soak_in_full(tmp_path):
    report = tmp_path / "soak.json"
    assert soak.main(["--battles", "1000", "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found.pop("restarts") == 0
    assert set(found) == {*FORMATS, "gen9randombattle"}
    for entry in found.values():
        assert entry["sound"]
        assert entry["battles"] == sum(entry["outcomes"].values()) == 1000
        assert entry["files"] == 2000
        assert set(entry["outcomes"]) <= {"won", "tie"}


@pytest.mark.slow
@pytest.mark.parametrize("battle_format", FORMATS)
def test_soak_with_others_teams(simulator, tmp_path, battle_format):
    findings = soak.soak(simulator, battle_format, 60, tmp_path, teams=shared_folder("teams"))
    assert findings.sound, findings.report()
