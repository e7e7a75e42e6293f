"""The battles that the repository brings along."""

from pathlib import Path

from battle import sample
from data.encode import Encoder
from data.replay_file import parse_name, read_battle
from data.schema import legal_actions
from data.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]


def test_the_bundled_battles():
    files = sorted((ROOT / "data" / "sample").rglob("*.lz4"))
    assert 150 <= len(files) <= 250
    assert sum(path.stat().st_size for path in files) < 2e6
    assert {path.parent.name for path in files} == set(sample.FORMATS)
    encoder = Encoder("opponentmove", Tokenizer.load())
    results = {"WIN": 0, "LOSS": 0}
    for path in files:
        battle, name = read_battle(path), parse_name(path)
        results[name.result] += 1
        encoded = encoder.encode(battle.states, battle.actions)
        assert encoded.n_unknown == 0
        assert encoded.won == (name.result == "WIN")
        assert all(legal_actions(s)[a] for s, a in zip(battle.states[:-1], battle.actions[:-1], strict=True))
        assert len(battle.states[0].available_switches) == 5
    assert min(results.values()) > 50


def test_the_bundled_battles_are_made_anew_and_nobody_elses_taken_away(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sample, "FORMATS", ("gen1ou",))
    folder = tmp_path / "gen1ou"
    folder.mkdir()
    mine = folder / "gen1ou-1_1500_a_vs_b_01-01-2026_WIN.json.lz4"
    for path in (mine, folder / "gen1ou-sample-000a_Unrated_old_vs_old_01-01-2020_WIN.json.lz4"):
        path.write_bytes(b"")
    with monkeypatch.context() as without:
        without.setenv("PATH", "")
        without.delenv("TURNWISE_NODE", raising=False)
        assert sample.main(["--out", str(tmp_path), "--pairs", "1"]) == 1
        assert "error: no `node` on the path" in capsys.readouterr().err
    assert sample.main(["--out", str(tmp_path), "--pairs", "1"]) == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names.pop(0) == mine.name
    assert len(names) == 4
    for name in names:
        bundled = read_battle(ROOT / "data" / "sample" / "gen1ou" / name)
        assert read_battle(folder / name).actions == bundled.actions
