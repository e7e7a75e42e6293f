"""Files to packs: contents against the encoder, exactly once over processes and workers, resume, bad files."""

import hashlib
from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from data.collate import build_pack
from data.dataset import BattleDataset, DataConfig, Reject, RejectLedger, TooManyRejects
from data.folders import DataError
from data.loader import BatchConfig, heldout_packs, make_loader, shape_for
from data.packing import PackShape, Window
from data.sampler import drawn_window
from data.tokenizer import Tokenizer
from tests.battle_files import Style, make_battle, write_battle, write_battles

TOKENIZER = Tokenizer.load()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("battles")
    write_battles(root, 60, seed=100)
    return root


def dataset(root, tmp_path, split="train", **options):
    options = {"max_turns": 24, "workers": 0, "heldout_share": 0.15, **options}
    config = DataConfig(path=str(root), cache_dir=str(tmp_path / "cache"), **options)
    return BattleDataset(config, TOKENIZER, split)


def windows_of(packs):
    return [tuple(row) for pack in packs for row in pack["windows"].tolist() if row[2] >= 0]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def check_pack(pack, data, shape):
    """Every row of a pack against the battles that its windows name."""
    n = shape.turns
    assert pack["words"].shape == (n, data.space.n_words)
    assert pack["cu_seqlens"].shape == (shape.segments + 1,)
    offsets = pack["cu_seqlens"].tolist()
    assert offsets[0] == 0
    assert offsets[-1] == n
    assert all(0 <= b - a <= shape.max_turns for a, b in pairwise(offsets))
    segment = pack["segment"].long()
    # Padding rows too are pieces with positions of their own: no row looks beyond its piece.
    assert torch.equal(segment, torch.searchsorted(pack["cu_seqlens"].long(), torch.arange(n), right=True) - 1)
    assert torch.equal(pack["position"].long(), torch.arange(n) - pack["cu_seqlens"].long()[segment])
    at = 0
    kind = data.config.reward
    for place, start, length in pack["windows"].tolist():
        if place < 0:
            continue
        battle = data[place]
        rows, states = slice(at, at + length), slice(start, start + length)
        assert at in offsets
        assert np.array_equal(pack["words"][rows].numpy(), battle.words[states])
        assert np.array_equal(pack["numbers"][rows].numpy(), battle.numbers[states])
        assert np.array_equal(pack["legal"][rows].numpy(), battle.legal[states])
        assert np.array_equal(pack["forced"][rows].numpy(), battle.forced[states])
        assert pack["valid"][rows].all()
        assert pack["position"][rows].tolist() == list(range(length))
        assert pack["segment"][rows].unique().numel() == 1
        for i in range(length):
            t, row = start + i, at + i
            decides = i < length - 1
            assert pack["decision"][row] == decides
            known = decides and battle.action[t] >= 0
            assert pack["action_known"][row] == known
            assert pack["action"][row] == (battle.action[t] if known else 0)
            assert pack["reward"][row] == (battle.rewards[kind][t] if decides else 0)
            assert pack["done"][row] == (decides and t + 2 == len(battle) and (battle.won or battle.lost))
            before_known = t > 0 and battle.action[t - 1] >= 0
            assert pack["prev_action_known"][row] == before_known
            assert pack["prev_action"][row] == (battle.action[t - 1] if before_known else 0)
            assert pack["prev_reward"][row] == (battle.rewards[kind][t - 1] if t else 0)
            assert pack["cloned"][row] == data.cloned[place]
            assert pack["outcome"][row] == (1 if battle.won else 0 if battle.lost else -1)
        at += length
    for key in ("valid", "decision", "action_known", "prev_action_known", "legal", "done", "forced", "cloned"):
        assert not pack[key][at:].any()
    assert (pack["words"][at:] == TOKENIZER.pad_id).all()
    assert (pack["outcome"][at:] == -1).all()


@pytest.mark.parametrize("plan", ["packed", "battles"])
@pytest.mark.parametrize("reward", ["shaped", "binary"])
def test_packs_hold_what_their_windows_say(folder, tmp_path, plan, reward):
    data = dataset(folder, tmp_path, reward=reward, space="teampreview", clone="won")
    assert 0 < data.cloned.sum() < len(data)
    loader = make_loader(data, BatchConfig(battles=8, accumulate=2, plan=plan), seed=1, max_steps=4)
    packs = list(loader)
    assert len(packs) == len(loader) == 8
    for pack in packs:
        check_pack(pack, data, loader.shape)
    if plan == "packed":
        assert loader.padding_share < 0.1
        assert loader.dropped_windows == 0


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores: meant here
@pytest.mark.parametrize(
    ("plan", "every"),
    [("packed", False), *(pytest.param(plan, True, marks=pytest.mark.slow) for plan in ("packed", "battles"))],
)
def test_exactly_once_over_processes_and_workers_with_resume(folder, tmp_path, plan, every):
    """The global order is the same for 1, 2, 3 processes with 2, 1, 0 workers (`every`: each with 0, 1, 3), also
    stopped and resumed on others."""
    batch = BatchConfig(battles=8, accumulate=1, plan=plan)
    reference = dataset(folder, tmp_path)
    total = 12
    whole = list(make_loader(reference, batch, seed=5, max_steps=total))
    assert len({tuple(map(tuple, pack["windows"].tolist())) for pack in whole}) == total
    for world in (1, 2, 3):
        for workers in (0, 1, 3) if every else (3 - world,):
            data = dataset(folder, tmp_path, workers=workers)
            got = {}
            stop = 6 // world  # then go on with another number of processes
            for rank in range(world):
                mine = make_loader(data, batch, seed=5, rank=rank, world=world, max_steps=stop)
                for step, pack in enumerate(mine):
                    got[step * world + rank] = pack
            other = {1: 3, 2: 1, 3: 2}[world]
            past = mine.drawn(stop)
            for rank in range(other):
                mine = make_loader(data, batch, seed=5, rank=rank, world=other, past=past, max_steps=6 // other)
                for step, pack in enumerate(mine):
                    got[6 + step * other + rank] = pack
            assert sorted(got) == list(range(total))
            assert all(equal(got[i], whole[i]) for i in range(total))


@pytest.mark.parametrize("plan", ["packed", "battles"])
def test_no_window_is_lost_where_the_packs_size_changes_on_the_way(folder, tmp_path, plan):
    """One process with packs for 8 battles, then two with packs for 3, then one again: each window of the first epochs
    (each file, where lengths are not used) stands once."""
    data = dataset(folder, tmp_path)
    seen, past = Counter(), []
    for battles, world, steps in ((8, 1, 5), (3, 2, 4), (3, 1, 2), (8, 1, 20)):
        batch = BatchConfig(battles=battles, plan=plan)
        loaders = [
            make_loader(data, batch, seed=5, rank=rank, world=world, past=past, max_steps=steps)
            for rank in range(world)
        ]
        for loader in loaders:
            windows = islice(loader.plan.for_rank(loader._rank, world, past), steps)
            seen.update((w.battle, w.start, w.length, w.epoch) for pack in windows for w in pack)
        past = loaders[0].drawn(steps)
    assert [drawn.packs for drawn in past] == [5, 10, 20]
    for epoch in range(2):
        first = {window[:3]: n for window, n in seen.items() if window[3] == epoch}
        assert set(first.values()) == {1}
        if plan == "packed":
            assert first.keys() == set(zip(*(part.tolist() for part in loader.plan.epoch_windows(epoch)), strict=True))
        else:
            assert sorted(battle for battle, _, _ in first) == loader.plan.members(epoch).tolist()


def test_an_epoch_holds_each_window_once(folder, tmp_path):
    data = dataset(folder, tmp_path)
    loader = make_loader(data, BatchConfig(battles=8, accumulate=1), seed=2, max_steps=40)
    expected = Counter(zip(*(part.tolist() for part in loader.plan.epoch_windows(0)), strict=True))
    seen = Counter()
    for pack in loader:
        for window in windows_of([pack]):
            if window in expected and seen[window] < 1:
                seen[window] += 1
        if seen == expected:
            break
    assert seen == expected
    decisions = sum(length - 1 for _, _, length in expected)
    assert decisions == int((data.lengths - 1).sum())


def test_accumulation_walks_the_same_packs(folder, tmp_path):
    data = dataset(folder, tmp_path)
    one = list(make_loader(data, BatchConfig(battles=8, accumulate=1), seed=5, max_steps=6))
    three = list(make_loader(data, BatchConfig(battles=8, accumulate=3), seed=5, max_steps=2))
    assert all(equal(a, b) for a, b in zip(one, three, strict=True))


def test_loading_draws_nothing_from_torchs_generator(folder, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for workers in (0, 1):
        list(make_loader(dataset(folder, tmp_path, workers=workers), BatchConfig(battles=4), seed=0, max_steps=1))
    assert torch.equal(before, torch.get_rng_state())


def test_heldout_packs_cover_the_split(folder, tmp_path):
    data = dataset(folder, tmp_path, "heldout")
    shape = shape_for(data, BatchConfig(battles=8))
    packs = list(heldout_packs(data, BatchConfig(battles=8), shape=shape))
    assert sum(int(pack["decision"].sum()) for pack in packs) == int((data.lengths - 1).sum())
    for pack in packs:
        check_pack(pack, data, shape)
    parts = [list(heldout_packs(data, BatchConfig(battles=8), rank=r, world=2, shape=shape)) for r in (0, 1)]
    assert sorted(windows_of(parts[0] + parts[1])) == sorted(windows_of(packs))


def test_few_battles_are_not_padded_to_a_pack_of_many(folder, tmp_path):
    """Twelve in packs for 32 took a run's evaluation three times as long."""
    data = dataset(folder, tmp_path, "heldout")
    packs = list(heldout_packs(data, BatchConfig(battles=50 * len(data))))
    assert sum(int(pack["decision"].sum()) for pack in packs) == int((data.lengths - 1).sum())
    assert sum(len(pack["words"]) for pack in packs) < data.lengths.sum() + 2 * 128


def test_heldout_packs_of_unknown_lengths_are_the_same(folder, tmp_path):
    """Lengths are found by reading as the packs go on: the first pack doesn't wait for the last file."""
    half = {"split": "heldout", "heldout_share": 0.5}
    shape = shape_for(dataset(folder, tmp_path, **half), BatchConfig(battles=2))
    known = list(heldout_packs(dataset(folder, tmp_path, **half), BatchConfig(battles=2), shape=shape))
    data = dataset(folder, tmp_path / "other", turns="never", **half)
    assert data.lengths is None
    stream = heldout_packs(data, BatchConfig(battles=2), shape=shape)
    first = next(stream)
    assert data.ledger.seen < len(data)
    assert all(equal(a, b) for a, b in zip([first, *stream], known, strict=True))
    assert len(list(heldout_packs(data, BatchConfig(battles=2), shape=shape))) == len(known)


def test_split_sides_are_disjoint_and_keep_views_together(tmp_path):
    root = tmp_path / "battles"
    for seed in range(60):
        battle = make_battle(seed, "gen1ou", Style(max_turns=4))
        write_battle(root, battle)
        battle.player, battle.opponent = battle.opponent, battle.player
        write_battle(root, battle)
    sides = {split: dataset(root, tmp_path, split, heldout_share=0.3) for split in ("train", "heldout", "all")}
    ids = {split: [data.info(i)["battle_id"] for i in range(len(data))] for split, data in sides.items()}
    assert not set(ids["train"]) & set(ids["heldout"])
    assert len(ids["train"]) + len(ids["heldout"]) == len(ids["all"]) == 120
    assert all(count == 2 for count in Counter(ids["heldout"]).values())

    def drawn(name):
        """As law 5 has it: the first four bytes of a name's SHA-256, below the share of them all."""
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") < 0.3 * 2**32

    assert 5 <= len(set(ids["heldout"])) <= 35
    assert set(ids["heldout"]) == {name for name in ids["all"] if drawn(f"gen1ou/{name}")}
    every = [sides["all"].info(i) for i in range(120)]
    pairs = dataset(root, tmp_path, "heldout", heldout_share=0.3, split_by="players")
    chosen = sorted(info["path"] for info in every if drawn("_".join(sorted((info["player"], info["opponent"])))))
    assert sorted(pairs.info(i)["path"] for i in range(len(pairs))) == chosen
    assert 10 <= len(chosen) <= 70


def test_unknown_lengths_drop_overflow_by_rule_and_count_it(folder, tmp_path):
    data = dataset(folder, tmp_path, turns="never")
    assert data.lengths is None
    batch = BatchConfig(battles=8, turns=64)
    loader = make_loader(data, batch, seed=1, max_steps=3)
    assert not loader.planned
    packs = list(loader)
    assert loader.dropped_windows > 0
    expected_dropped = 0
    for pack, windows in zip(packs, loader.plan.for_rank(0, 1), strict=False):
        room, kept = 64, []
        for window in windows:
            start, length = drawn_window(len(data[window.battle]), 24, window.start, window.draw)
            if length <= room:
                kept.append((window.battle, start, length))
                room -= length
            else:
                expected_dropped += 1
        assert windows_of([pack]) == kept
    assert loader.dropped_windows == expected_dropped
    with pytest.raises(DataError, match="index --turns"):
        make_loader(data, BatchConfig(plan="packed"), seed=1, max_steps=3)


def spoil(root, n):
    files = sorted(root.glob("*/*.lz4"))[:n]
    for file in files:
        file.write_bytes(file.read_bytes()[:50])
    return files


def test_a_window_that_leaves_no_segment_for_the_padding_is_dropped(folder, tmp_path):
    data = dataset(folder, tmp_path)
    windows = [Window(i, 0, 4, 0) for i in range(6)]
    pack, report = build_pack(data, windows, PackShape(72, 5, 24))  # padding in pieces of 24 rows: three, then two
    assert [place for place in pack["windows"][:, 0].tolist() if place >= 0] == [0, 1]
    assert pack["cu_seqlens"].tolist() == [0, 4, 8, 32, 56, 72]
    assert (report.seen, report.dropped_windows, report.dropped_turns) == (6, 4, 16)
    check_pack(pack, data, PackShape(72, 5, 24))


def test_one_bad_file_is_named_and_the_run_goes_on(tmp_path, caplog):
    write_battles(tmp_path / "b", 40, style=Style(max_turns=10))
    (bad,) = spoil(tmp_path / "b", 1)
    data = dataset(tmp_path / "b", tmp_path, heldout_share=0.0)
    assert list(data.ledger.rejects) == [str(bad)]
    assert "lz4" in data.ledger.rejects[str(bad)]
    assert str(bad) in caplog.text
    packs = list(make_loader(data, BatchConfig(battles=8), seed=0, max_steps=4))
    assert data.path(int(np.flatnonzero(data.lengths == 0)[0])) == str(bad)
    assert all(data.path(place) != str(bad) for place, _, _ in windows_of(packs))


@pytest.mark.parametrize("turns", ["always", "never"])
def test_too_many_bad_files_stop_the_run(tmp_path, turns):
    write_battles(tmp_path / "b", 40, style=Style(max_turns=10))
    spoil(tmp_path / "b", 3)

    def run(**options):
        data = dataset(tmp_path / "b", tmp_path, heldout_share=0.0, turns=turns, **options)
        list(make_loader(data, BatchConfig(battles=8), seed=0, max_steps=20))
        return data

    with pytest.raises(TooManyRejects, match="max_reject_share"):
        run()
    run(max_reject_share=0.2)


@pytest.mark.parametrize("turns", ["always", "never"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_vanishes_or_changes_is_counted(tmp_path, turns, workers):
    write_battles(tmp_path / "b", 30, style=Style(max_turns=10))
    data = dataset(tmp_path / "b", tmp_path, heldout_share=0.0, turns=turns, workers=workers, max_reject_share=0.5)
    files = sorted((tmp_path / "b").glob("*/*.lz4"))
    files[0].unlink()
    files[1].write_bytes(b"shorter")
    loader = make_loader(data, BatchConfig(battles=8), seed=0, max_steps=10)
    packs = list(loader)
    assert {str(files[0]), str(files[1])} <= set(loader.ledger.rejects)
    assert "gone" in loader.ledger.rejects[str(files[0])]
    assert "indexed" in loader.ledger.rejects[str(files[1])]
    for pack in packs:
        assert int(pack["cu_seqlens"][-1]) == loader.shape.turns


def test_of_many_rejects_at_once_the_first_are_named(caplog):
    ledger = RejectLedger(0.5)
    ledger.add_names(10_000, [Reject(f"gen1ou/{i}", "name: is none of a battle") for i in range(100)])
    assert [record.getMessage() for record in caplog.records][19:] == [
        "rejected gen1ou/19: name: is none of a battle",
        "… and 80 more files: `python -m data.prepare verify` names those of a folder, manifest.json those of "
        "a token cache",
    ]
    assert len(ledger.rejects) == 100
    ledger.add_names(0, [Reject("gen1ou/7", "name: is none of a battle")])
    assert len(caplog.records) == 21


def test_two_early_rejects_among_many_do_not_stop_a_run():
    """Of a sample, far more than the share must be bad; of all files, the share itself."""
    ledger = RejectLedger(0.01)
    ledger.add_names(1_000_000, [])
    ledger.add(30, [Reject("a", "lz4: x"), Reject("b", "lz4: x")])
    with pytest.raises(TooManyRejects):
        ledger.add(10, [Reject("c", "lz4: x"), Reject("d", "lz4: x")])
    whole = RejectLedger(0.01)
    whole.add_names(100, [])
    whole.add(100, [Reject("a", "lz4: x")])
    with pytest.raises(TooManyRejects, match="2 of 100"):
        whole.add(0, [Reject("b", "lz4: x")])
    names = RejectLedger(0.01)
    names.add_names(500, [Reject(str(i), "name: x") for i in range(5)])
    with pytest.raises(TooManyRejects, match="8 of"):
        names.add_names(0, [Reject(str(i), "name: x") for i in range(8)])
    steady = RejectLedger(0.01)
    steady.add_names(100_000, [])
    for i in range(500):
        steady.add(200, [Reject(f"{i}.{k}", "lz4: x") for k in range(2 - i % 2)])  # 0.75%
    assert steady.seen == 100_000


def test_a_dirty_source_is_judged_with_the_others_whichever_is_read_first(tmp_path):
    write_battles(tmp_path / "dirty", 10, style=Style(max_turns=10))
    spoil(tmp_path / "dirty", 3)
    write_battles(tmp_path / "clean", 40, style=Style(max_turns=10))
    for order in (("dirty", "clean"), ("clean", "dirty")):
        sources = [{"path": str(tmp_path / name)} for name in order]
        of = {"sources": sources, "cache_dir": str(tmp_path / "i"), "heldout_share": 0.0}
        data = BattleDataset(DataConfig(**of, max_reject_share=0.06), TOKENIZER)
        assert len(data.ledger.rejects) == 3
        with pytest.raises(TooManyRejects, match="3 of 50 files"):
            BattleDataset(DataConfig(**of, max_reject_share=0.05), TOKENIZER)


def test_all_bad_is_an_error(tmp_path):
    write_battles(tmp_path / "b", 3, style=Style(max_turns=10))
    spoil(tmp_path / "b", 3)
    with pytest.raises(TooManyRejects):
        dataset(tmp_path / "b", tmp_path)


def test_report_at_the_start(folder, tmp_path):
    data = dataset(folder, tmp_path)
    report = data.inspect()
    assert sum(report.files.values()) == len(data)
    assert report.turns == data.lengths.sum()
    assert report.unknown_share == 0.0
    assert 0 < report.blank_share < 0.5


def test_unknown_words_over_the_share_refuse_to_start(folder, tmp_path):
    data = dataset(folder, tmp_path)
    data.tokenizer = Tokenizer(["<blank>", "snorlax"])
    with pytest.raises(DataError, match="unknown to the vocabulary"):
        data.inspect()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"space": "huge"}, "observation space"),
        ({"reward": "huge"}, "data.reward"),
        ({"max_turns": 1}, "data.max_turns"),
        ({"heldout_share": 1.0}, "data.heldout_share"),
        ({"workers": -1}, "data.workers"),
        ({"illegal_actions": "maybe"}, "data.illegal_actions"),
        ({"turns": "maybe"}, "data.turns"),
    ],
)
def test_bad_configuration_names_its_key(options, match):
    with pytest.raises(ValueError, match=match):
        DataConfig(**options)
