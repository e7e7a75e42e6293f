"""The journal of a command's battles: whose it is, what is none, and what a kill leaves of it."""

import importlib
import json
import sys
from types import SimpleNamespace

import pytest
import torch

from battle.errors import BattleError
from battle.journal import Journal, code_of, fingerprint, remove_unnoted
from battle.recorder import open_journal


def test_an_agent_whose_code_was_changed_is_another(tmp_path, monkeypatch):
    file = tmp_path / "own_player.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    told = []
    for text in ("class Own: pass\n", "class Own: name = 'mended'\n"):
        file.write_text(text)
        told.append(code_of(importlib.import_module("own_player").Own()))
        told.append(fingerprint({}, [], [importlib.import_module("own_player").Own()])["code"])
        sys.modules.pop("own_player")
    assert told[0] != told[2]
    assert told[1::2] == [[told[0]], [told[2]]]
    assert code_of(type("Own", (), {"__module__": "nowhere"})()) == ""


@pytest.mark.parametrize("head", ["[1]", '{"a": 1}', "1", "no JSON"])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path, head):
    place = tmp_path / "battles.jsonl"
    place.write_text(f"{head}\n")
    with pytest.raises(BattleError, match="is no journal of battles: give a fresh --out"):
        Journal(place, {"seed": 1}, "--out")
    assert place.read_text() == f"{head}\n"


def test_what_a_kill_cut_short_is_passed_over_and_nothing_else(tmp_path):
    place = tmp_path / "battles.jsonl"
    place.write_text('{"run": "01')  # a first line: begun anew
    run = Journal(place, {"seed": 1}, "--out").run
    with open_journal(place) as file:
        Journal(place, {"seed": 1}, "--out").note(file, 1, kind="won")
        # Read by another while it is open: each battle is there as it ends.
        assert Journal(place, {"seed": 1}, "--out").notes == [{"battle": 1, "kind": "won"}]
        file.write('{"battle": 2, "ki')
    with open_journal(place) as file:
        for line in ('{"battle": 3}', '[{"battle": 4}]', '{"other": 5}', "5", '"battle"', '{"battle": 6}'):
            file.write(line + "\n")
    found = Journal(place, {"seed": 1}, "--out")
    assert (found.run, [note["battle"] for note in found.notes]) == (run, [1, 3, 6])
    (tmp_path / "empty").touch()
    for whole in (place, tmp_path / "empty"):
        before = whole.read_text()
        open_journal(whole).close()
        assert whole.read_text() == before


def test_only_files_of_this_commands_unnoted_battles_are_taken_away(tmp_path):
    names = [f"{name}_1_a_vs_b_01-01-2024_WIN.json.lz4" for name in ("gen1ou-r-1", "gen1ou-r-12", "gen1ou-q-12")]
    (tmp_path / "gen1ou").mkdir()
    for name in (*names, "notes.txt"):
        (tmp_path / "gen1ou" / name).touch()
    remove_unnoted(tmp_path, "gen1ou", "r", {"1"})
    assert {path.name for path in (tmp_path / "gen1ou").iterdir()} == {names[0], names[2], "notes.txt"}


def test_a_fingerprint_is_of_all_that_battles_hang_on():
    torch.manual_seed(0)

    def agent(network=None, **acts):
        return SimpleNamespace(**{"gamma": 0.9, "beta": 0.2, "temperature": 0.0, "network": network, **acts})

    plain, model = agent(), torch.nn.Linear(2, 2)
    other = torch.nn.Linear(2, 2)
    other.load_state_dict(model.state_dict() | {"bias": torch.ones(2)})
    given = [
        ({"seed": 1}, ["t"], [plain, agent(model)]), ({"seed": 2}, ["t"], [plain, agent(model)]),
        ({"seed": 1}, ["u"], [plain, agent(model)]), ({"seed": 1}, ["t"], [plain, agent(other)]),
        *(({"seed": 1}, ["t"], [plain, agent(model, **{key: 0.5})]) for key in ("gamma", "beta", "temperature")),
    ]  # fmt: skip
    assert len({json.dumps(fingerprint(*one)) for one in given}) == len(given)
    assert fingerprint(*given[0]) == fingerprint({"seed": 1}, ["t"], [agent(), agent(model)])


def test_what_an_older_journal_does_not_say_is_taken_for_the_same(tmp_path):
    place = tmp_path / "battles.jsonl"
    run = Journal(place, {"seed": 1, "models": 5}, "--out").run
    assert Journal(place, {"seed": 1, "models": 5, "lanes": 16}, "--out").run == run
    with pytest.raises(BattleError, match=r"was begun with another seed \(1 → 2\), models: repeat"):
        Journal(place, {"seed": 2, "models": 6}, "--out")
