"""A cache of another space, vocabulary, reward, rule or version than the run's is refused; an older one goes on."""

import json

import numpy as np
import pytest

from data.dataset import BattleDataset, DataConfig
from data.folders import DataError
from data.reward import REWARDS, RewardKind, digests, transition
from data.token_cache import TokenCache
from data.tokenizer import Tokenizer
from tests.battle_files import Style, make_battle, write_battle
from tests.own_space import add_space, mean_hp

from .caches import TOKENIZER, cache_of, dataset_of


def test_a_cache_is_compared_with_the_run(folder, tmp_path):
    cache_of(folder, tmp_path / "c")
    with pytest.raises(DataError, match="space"):
        BattleDataset(DataConfig(path=str(tmp_path / "c"), space="expanded"), TOKENIZER)
    with pytest.raises(DataError, match="vocabulary"):
        BattleDataset(DataConfig(path=str(tmp_path / "c")), Tokenizer(["snorlax"]))
    with pytest.raises(DataError, match="gen5ou not in the cache"):
        BattleDataset(DataConfig(path=str(tmp_path / "c"), formats=["gen5ou"], max_reject_share=0.5), TOKENIZER)
    some = BattleDataset(
        DataConfig(path=str(tmp_path / "c"), formats=["gen9ou"], heldout_share=0.0, max_reject_share=0.5), TOKENIZER
    )
    assert set(some.formats()) == {"gen9ou"}


def test_a_cache_by_the_other_rule_for_illegal_actions_is_refused_where_it_differs(tmp_path, monkeypatch):
    monkeypatch.setattr("data.cache_end.REJECTS_KEPT", 0)  # nor where its manifest names others alone
    battles = [make_battle(seed, "gen1ou", Style(max_turns=6)) for seed in range(4)]
    battles[0].actions[0] = 12
    for battle in battles:
        write_battle(tmp_path / "b", battle)
    taken = dataset_of(tmp_path / "b", tmp_path, illegal_actions="unrecorded", max_bytes=1 << 20)
    assert taken.lengths.min() > 0
    for options, count in ({}, 1), ({"max_bytes": 1000, "max_reject_share": 1.0}, 4):
        assert (
            dataset_of(
                tmp_path / "b", tmp_path, turns="always", cache_dir=str(tmp_path / str(count)), **options
            ).lengths
            == 0
        ).sum() == count
    manifest = cache_of(tmp_path / "b", tmp_path / "c")
    assert manifest["rejects"]["by_field"] == {"actions": 1}
    assert len(dataset_of(tmp_path / "c", tmp_path)) == 3
    with pytest.raises(DataError, match="lacks battles for their illegal actions"):
        dataset_of(tmp_path / "c", tmp_path, illegal_actions="unrecorded")
    cache_of(tmp_path / "b", tmp_path / "d", illegal="unrecorded")
    assert len(dataset_of(tmp_path / "d", tmp_path, illegal_actions="unrecorded")) == 4
    with pytest.raises(DataError, match=r"holds battles with 1 illegal actions, .* set it to unrecorded"):
        dataset_of(tmp_path / "d", tmp_path)  # which raw files would be refused by
    write_battle(tmp_path / "e", battles[1])
    for rule in ("reject", "unrecorded"):
        cache_of(tmp_path / "e", tmp_path / rule, illegal=rule)
        assert {len(dataset_of(tmp_path / rule, tmp_path, illegal_actions=r)) for r in ("reject", "unrecorded")} == {1}


def redefine(monkeypatch, formulas):
    monkeypatch.setattr("data.reward.transition", formulas)
    monkeypatch.setattr("data.walk.transition", formulas)


def test_a_cache_of_another_reward_is_refused(folder, tmp_path, monkeypatch):
    """A formula changed in reward.py is neither served from older arrays, nor taken for a cache that is done."""
    cache_of(folder, tmp_path / "c")
    before = digests()

    def doubled(a, b):
        shaped, *others = transition(a, b)
        return 2 * shaped, *others

    redefine(monkeypatch, doubled)
    assert {kind for kind, digest in digests().items() if digest != before[kind]} == {"shaped"}
    with pytest.raises(DataError, match="reward 'shaped' had another formula"):
        dataset_of(tmp_path / "c", tmp_path)
    assert len(dataset_of(tmp_path / "c", tmp_path, reward="binary")) == 50
    with pytest.raises(DataError, match="begun with another rewards"):
        cache_of(folder, tmp_path / "c")
    cache_of(folder, tmp_path / "d")
    assert len(dataset_of(tmp_path / "d", tmp_path)) == 50


def test_a_reward_kind_is_added_in_one_file(folder, tmp_path, monkeypatch):
    cache_of(folder, tmp_path / "c")
    kind = RewardKind("fainted", win=0.0, loss=0.0, max_abs_step=1.0, max_abs_return=6.0)
    monkeypatch.setitem(REWARDS, "fainted", kind)
    redefine(monkeypatch, lambda a, b: (*transition(a, b), float(a.opponents_remaining - b.opponents_remaining)))
    with pytest.raises(DataError, match="reward 'fainted' had another formula, or none"):
        dataset_of(tmp_path / "c", tmp_path, reward="fainted")
    assert len(dataset_of(tmp_path / "c", tmp_path)[0].reward("shaped")) > 0
    cache_of(folder, tmp_path / "d")
    raw, cached = (dataset_of(path, tmp_path, reward="fainted") for path in (folder, tmp_path / "d"))
    assert np.array_equal(raw[1].reward("fainted"), cached[1].reward("fainted"))
    assert raw[1].reward("fainted").any()


def test_a_cache_older_than_the_stamp_of_its_rewards_goes_on(folder, tmp_path, monkeypatch):
    cache_of(folder, tmp_path / "c")
    for name in ("manifest.json", "job.json"):
        facts = json.loads((tmp_path / "c" / name).read_text())
        del facts["rewards"]
        facts.pop("max_bytes", None)  # which came later still
        (tmp_path / "c" / name).write_text(json.dumps(facts))
    assert len(dataset_of(tmp_path / "c", tmp_path)) == 50
    assert cache_of(folder, tmp_path / "c")["battles"] == 50
    manifest = json.loads((tmp_path / "c" / "manifest.json").read_text())
    del manifest["rewards"]
    (tmp_path / "c" / "manifest.json").write_text(json.dumps(manifest))
    redefine(monkeypatch, lambda a, b: (2 * transition(a, b)[0], *transition(a, b)[1:]))
    with pytest.raises(DataError, match="reward 'shaped' had another formula"):
        dataset_of(tmp_path / "c", tmp_path)


def test_a_cache_of_an_edited_space_is_refused(folder, tmp_path, monkeypatch):
    """Neither served to a run with the new formula, nor taken for a cache that is done."""
    add_space(monkeypatch, mean_hp)
    cache_of(folder, tmp_path / "c", space="mine")
    assert len(dataset_of(tmp_path / "c", tmp_path, space="mine")) == 50
    for formula, slots in ((lambda state: mean_hp(state) ** 2, ["mean_hp"]), (mean_hp, ["mean_hp", "again"])):
        add_space(monkeypatch, formula, slots)
        with pytest.raises(DataError, match="space 'mine' had other slots or formulas when it was made"):
            dataset_of(tmp_path / "c", tmp_path, space="mine")
        with pytest.raises(DataError, match="begun with another space_digest"):
            cache_of(folder, tmp_path / "c", space="mine")
    cache_of(folder, tmp_path / "d", space="mine")
    assert len(dataset_of(tmp_path / "d", tmp_path, space="mine")) == 50


def test_a_cache_older_than_the_digest_of_its_space_goes_on(folder, tmp_path, monkeypatch):
    """Of its space nothing is known: made on, it does not say that all of it is of today's."""
    cache_of(folder, tmp_path / "c")
    for name in ("manifest.json", "job.json"):
        facts = json.loads((tmp_path / "c" / name).read_text())
        assert facts.pop("space_digest")
        (tmp_path / "c" / name).write_text(json.dumps(facts))
    assert len(dataset_of(tmp_path / "c", tmp_path)) == 50
    assert cache_of(folder, tmp_path / "c")["space_digest"] is None
    assert len(dataset_of(tmp_path / "c", tmp_path)) == 50


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"version": 99}, "version is 99"),
        ({"schema": 99}, "schema is 99"),
        ({"kind": "cake"}, "no token cache"),
        ([], "no token cache"),
        (
            {"shards": [{"file": "shard-gen1ou-00000.arrow", "battles": "ten"}]},
            r"manifest\.json: cannot be read .*shards",
        ),
        ({"rejects": {"files": []}}, "cannot be read .*count"),
        (None, "cannot be read"),
    ],
)
def test_caches_of_another_version_are_refused(folder, tmp_path, change, match):
    cache_of(folder, tmp_path / "c")
    file = tmp_path / "c" / "manifest.json"
    content = {**json.loads(file.read_text()), **change} if change else change
    file.write_text("{" if change is None else json.dumps(content))
    with pytest.raises(DataError, match=match):
        TokenCache(tmp_path / "c")


def test_a_reward_kind_without_its_value_is_told_of(monkeypatch):
    monkeypatch.setitem(REWARDS, "mine", RewardKind("mine", win=1.0, loss=0.0, max_abs_step=0.0, max_abs_return=1.0))
    with pytest.raises(ValueError, match=r"reward\.py: REWARDS has 4 kinds and transition returns 3 values"):
        digests()
