"""Several sources of battles: mixed, filtered and weighted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.dataset import BattleDataset, DataConfig
from data.folders import DataError
from data.loader import BatchConfig, make_loader
from tests.battle_files import Style, write_battles

from .caches import TOKENIZER, cache_of, tar_of


def test_sources_are_mixed_in_their_shares(folder, tmp_path):
    """A cache and a folder of another size, one to three; each battle at most once an epoch."""
    write_battles(tmp_path / "other", 20, seed=900, style=Style(max_turns=10))
    cache_of(folder, tmp_path / "c")
    config = DataConfig(
        sources=[
            {"path": str(tmp_path / "c"), "weight": 1, "filter": "rating >= 1000"},
            {"path": str(tmp_path / "other"), "weight": 3, "formats": ["gen1ou", "gen9ou"]},
        ],
        cache_dir=str(tmp_path / "i"),
        heldout_share=0.0,
        workers=0,
        max_reject_share=0.5,
    )
    data = BattleDataset(config, TOKENIZER)
    assert len(data) == 50 + 8
    loader = make_loader(data, BatchConfig(battles=8), seed=0, max_steps=1)
    counts = np.zeros(len(data))
    for epoch in range(100):
        members = loader.plan.members(epoch)
        assert len(set(members.tolist())) == len(members)
        counts[members] += 1
    assert (counts[50:] == 100).all()
    assert counts[:50].sum() == pytest.approx(counts[50:].sum() / 3, rel=0.05)
    for i in (0, 49, 50, 57):  # the ends of either source
        assert len(data[i]) == data.lengths[i]
        assert Path(data.path(i)).name
    turned = BattleDataset(replace(config, sources=config.sources[::-1]), TOKENIZER)
    places = {Path(turned.path(i)).name: i for i in range(len(turned))}
    for i in range(len(data)):  # the cache's rows are not its first ones here
        assert np.array_equal(turned[places[Path(data.path(i)).name]].words, data[i].words)


def test_a_sources_own_formats_go_before_those_of_all(folder, tmp_path):
    write_battles(tmp_path / "other", 10, seed=900, style=Style(max_turns=10))
    cache_of(folder, tmp_path / "c")
    sources = [{"path": str(tmp_path / "c")}, {"path": str(tmp_path / "other"), "formats": ["gen1ou"]}]
    for order in (sources, [{**sources[1], "path": sources[0]["path"]}, {"path": sources[1]["path"]}]):
        config = DataConfig(
            sources=order, formats=["gen2ou"], cache_dir=str(tmp_path / "i"), heldout_share=0.0, max_reject_share=0.5
        )
        data = BattleDataset(config, TOKENIZER)
        read = {(Path(data.path(i)).parent.parent.name, data.info(i)["format"]) for i in range(len(data))}
        assert read == {(Path(part["path"]).name, part.get("formats", ["gen2ou"])[0]) for part in order}


def test_some_battles_are_of_all_formats_and_stay_the_same_ones(folder, tmp_path):
    """The index is sorted by format: the first battles of it would all be of one."""
    config = DataConfig(path=str(folder), cache_dir=str(tmp_path / "i"), heldout_share=0.0, max_reject_share=0.5)
    data = BattleDataset(config, TOKENIZER)
    part = data.some(20)
    assert len(part) == len(part.lengths) == len(part.keys) == 20
    assert len(set(part.formats())) == len(set(data.formats())) > 1
    places = {data.path(i): i for i in range(len(data))}
    for i in range(len(part)):
        assert data.keys[places[part.path(i)]] == part.keys[i]
        if part.lengths[i]:
            assert len(part[i]) == part.lengths[i]
    wins = BattleDataset(replace(config, clone="won"), TOKENIZER)
    for of_them in (wins, wins.some(20)):
        assert of_them.cloned.tolist() == [of_them.info(i)["won"] for i in range(len(of_them))]
    assert {part.path(i) for i in range(20)} < {data.some(30).path(i) for i in range(30)}
    assert data.some(None) is data.some(len(data)) is data


def test_filters_and_weights_over_the_index(folder, tmp_path):
    base = {"cache_dir": str(tmp_path / "i"), "heldout_share": 0.0, "path": str(folder), "max_reject_share": 0.5}
    strong = BattleDataset(DataConfig(**base, filter="rating > 1200 and format in ('gen1ou', 'gen4ou')"), TOKENIZER)
    assert all(strong.info(i)["rating"] > 1200 for i in range(len(strong)))
    assert set(strong.formats()) <= {"gen1ou", "gen4ou"}
    weights = DataConfig(**base, weight="2 if won else 1", format_weights={"gen9ou": 0.0})
    weighted = BattleDataset(weights, TOKENIZER)
    assert [weighted.info(i)["won"] for i in range(len(weighted))] == (weighted.rates == 1.0).tolist()
    assert set(weighted.rates) == {0.5, 1.0}
    everything = BattleDataset(DataConfig(**base), TOKENIZER)
    assert set(weighted.formats()) == set(everything.formats()) - {"gen9ou"}
    assert "gen9ou" in BattleDataset(weights, TOKENIZER, "all").formats()
    multiplied = BattleDataset(replace(weights, format_weights={"gen9ou": 4.0}), TOKENIZER)
    assert set(multiplied.rates) == {1.0, 0.5, 0.25, 0.125}
    with pytest.raises(DataError, match="give no battle a weight above 0; raise one"):
        BattleDataset(replace(weights, weight="0"), TOKENIZER)
    # A format that is never trained on is still one to be judged on.
    judged = BattleDataset(replace(weights, heldout_share=0.5), TOKENIZER, "heldout")
    assert "gen9ou" in judged.formats()
    alone = {"split_by": "battle", "heldout_share": 0.5, "filter": "format == 'gen9ou'"}
    assert set(BattleDataset(replace(weights, **alone), TOKENIZER, "heldout").formats()) == {"gen9ou"}
    with pytest.raises(DataError, match=r"data\.format_weights: gen9uo is none of the formats read, which are gen1ou"):
        BattleDataset(DataConfig(**base, format_weights={"gen1ou": 2.0, "gen9uo": 0.0}), TOKENIZER)
    with pytest.raises(DataError, match=r"data\.filter"):
        BattleDataset(DataConfig(**base, filter="elo > 3"), TOKENIZER)
    with pytest.raises(
        DataError, match=r"data\.clone: \"player == 'nobody'\" holds for none of \d+ battles on the train"
    ):
        BattleDataset(DataConfig(**base, clone="player == 'nobody'"), TOKENIZER)
    with pytest.raises(DataError, match="no battle"):
        BattleDataset(DataConfig(**base, filter="rating > 90000"), TOKENIZER)


def test_a_source_without_a_battle_is_not_left_out_in_silence(folder, tmp_path):
    write_battles(tmp_path / "other", 5, seed=900, style=Style(max_turns=10))
    base = {"cache_dir": str(tmp_path / "i"), "max_reject_share": 0.5}
    for options in ({"filter": "rating > 90000"}, {"formats": ["gen1ou"]}):
        sources = [{"path": str(folder)}, {"path": str(tmp_path / "other"), "weight": 3, **options}]
        config = DataConfig(**base, sources=sources, weight="0 if format == 'gen1ou' else 1", heldout_share=0.0)
        with pytest.raises(DataError, match=r"data\.sources\[1\]: none of its battles \(.*other\) is drawn"):
            BattleDataset(config, TOKENIZER)
        # Nothing is held out: said as with one source, not of the weights.
        with pytest.raises(DataError, match="no battle on the heldout side"):
            BattleDataset(config, TOKENIZER, "heldout")
        with pytest.raises(DataError, match=r"data\.sources\[1\]: none of its battles"):
            BattleDataset(config, TOKENIZER, "all")
    sources[1] = {**sources[1], "filter": "rating > 90000"}
    held_out = DataConfig(**base, sources=sources, heldout_share=0.5)
    assert len(BattleDataset(held_out, TOKENIZER, "heldout"))  # where a small source may have none


def test_battles_of_two_sources_are_told_of(folder, tmp_path, caplog):
    """A folder beside the cache that was made of it: all is drawn twice as often as it seems."""
    cache_of(folder, tmp_path / "c")
    settings = {"cache_dir": str(tmp_path / "i"), "heldout_share": 0.1, "max_reject_share": 0.5}
    sources = [{"path": str(tmp_path / "c")}, {"path": str(folder), "formats": ["gen1ou"]}]
    BattleDataset(DataConfig(sources=sources[:1], **settings), TOKENIZER)
    BattleDataset(DataConfig(sources=sources, **settings), TOKENIZER, "heldout")
    assert "more than one" not in caplog.text
    data = BattleDataset(DataConfig(sources=sources, **settings), TOKENIZER)
    both = sum(data.info(i)["format"] == "gen1ou" for i in range(len(data))) // 2
    assert f"data.sources: {both} battles stand in more than one" in caplog.text


def test_files_that_cannot_be_read_take_no_part_of_their_sources_share(tmp_path):
    """Battles of one source made up for another's spoilt files, and for a source of nothing else."""
    for name, seed in ("a", 100), ("b", 900):
        write_battles(tmp_path / name, 20, seed=seed, style=Style(max_turns=10))
    sources = [{"path": str(tmp_path / "a")}, {"path": str(tmp_path / "b")}]
    config = DataConfig(
        sources=sources, cache_dir=str(tmp_path / "i"), heldout_share=0.0, max_reject_share=0.5, workers=0
    )
    files = sorted((tmp_path / "b").rglob("*.lz4"))
    for file in files[::2]:
        file.write_bytes(b"spoilt")
    data = BattleDataset(config, TOKENIZER)
    assert len(data) == 20 + 10
    second = data.rows >= data.sources.parts[1].first
    assert data.rates[second].sum() == pytest.approx(data.rates[~second].sum())
    for file in files:
        file.write_bytes(b"spoilt")
    with pytest.raises(DataError, match=r"data\.sources\[1\]: none of its battles .* what was rejected"):
        BattleDataset(config, TOKENIZER)


@pytest.mark.parametrize(
    ("sources", "match"),
    [
        ([{"paht": "x", "path": "y"}], "did you mean path"),
        ([{"weight": 1}], "with a path"),
        ([{"path": "x", "weight": -1}], "above 0"),
        ([{"path": "x", "weight": "much"}], "above 0"),
        (["x"], "with a path"),
        ([{"path": "x", "formats": "gen9ou"}], r"data\.sources\[0\]\.formats: is 'gen9ou'; give a list"),
        ([{"path": "x", "formats": [1]}], "give a list"),
        ([{"path": "x", "filter": True}], r"data\.sources\[0\]\.filter: is True; give an expression"),
    ],
)
def test_bad_sources_name_their_key(sources, match):
    with pytest.raises(DataError, match=match):
        BattleDataset(DataConfig(sources=sources), TOKENIZER)


def test_path_and_sources_together_are_refused():
    with pytest.raises(DataError, match="both given"):
        DataConfig(path="x", sources=[{"path": "y"}])
    with pytest.raises(DataError, match="is empty"):
        BattleDataset(DataConfig(), TOKENIZER)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"filter": "ratting > 1500"}, "data.filter: 'ratting' is no column"),
        ({"clone": "player"}, "data.clone: "),
        ({"weight": "'much'"}, "data.weight: .* gives text"),
        ({"sources": [{"path": "tars", "filter": "won +"}]}, r"data.sources\[0\].filter: .* is no expression"),
        ({"sources": [{"path": "tars"}, {"path": "none"}]}, "none: is no folder; give the folder that holds"),
    ],
)
def test_a_slip_is_told_before_the_first_source_is_read(folder, tmp_path, monkeypatch, options, match):
    """Which of archives may be an hour later."""
    (tmp_path / "tars").mkdir()
    tar_of(folder, tmp_path / "tars" / "gen1ou.tar", "gen1ou")
    monkeypatch.chdir(tmp_path)
    options = options if "sources" in options else {"path": "tars", **options}
    with pytest.raises(DataError, match=match):
        BattleDataset(DataConfig(cache_dir="i", max_reject_share=0.5, **options), TOKENIZER)
    assert not list(tmp_path.glob("i/*"))
