"""The journal of a command's battles: whose it is, and what is none."""

import importlib

import pytest

from battle.errors import BattleError
from battle.journal import Journal, code_of


def test_an_agent_whose_code_was_changed_is_another(tmp_path, monkeypatch):
    file = tmp_path / "own_player.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    told = []
    for text in ("class Own: pass\n", "class Own: name = 'mended'\n"):
        file.write_text(text)
        told.append(code_of(importlib.import_module("own_player").Own()))
    assert told[0] != told[1]
    assert code_of(type("Own", (), {"__module__": "nowhere"})()) == ""


@pytest.mark.parametrize("head", ["[1]", '{"a": 1}', "1", "no JSON"])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path, head):
    place = tmp_path / "battles.jsonl"
    place.write_text(f"{head}\n")
    with pytest.raises(BattleError, match="is no journal of battles: give a fresh --out"):
        Journal(place, {"seed": 1}, "--out")
    assert place.read_text() == f"{head}\n"
