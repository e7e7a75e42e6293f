"""Windows and packs: every decision once an epoch, whatever the number of processes; a pure function of its inputs."""

from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import packing
from data.packing import PackShape, Piece, Window, fill, fits
from data.sampler import (
    POOL,
    BatchConfig,
    Drawn,
    Plan,
    cut_windows,
    drawn_window,
    first_cut,
    heldout_plan,
    mix,
    pack_shape,
    permutation,
)

lengths_lists = st.lists(st.integers(2, 300), min_size=1, max_size=60)


def shape_of(lengths, max_turns=50, battles=8, **options):
    windows = np.minimum(lengths, max_turns)
    return pack_shape(BatchConfig(battles=battles, **options), max_turns, float(np.mean(windows)))


@settings(max_examples=200, deadline=None)
@given(lengths_lists, st.integers(2, 130), st.integers(0, 2**40), st.integers(0, 1000))
def test_windows_cover_each_decision_once(lengths, max_turns, seed, epoch):
    lengths = np.array(lengths)
    battles = np.arange(len(lengths)) + 7
    cuts = first_cut(seed, epoch, battles, max_turns)
    assert (cuts >= 1).all()
    assert (cuts < max_turns).all()
    battle, start, length = cut_windows(battles, lengths, max_turns, cuts)
    assert (length >= 2).all()
    assert (length <= max_turns).all()
    for place, n in zip(battles, lengths, strict=True):
        mine = battle == place
        covered = [t for s, k in zip(start[mine], length[mine], strict=True) for t in range(s, s + k - 1)]
        assert covered == list(range(n - 1))
        if n <= max_turns:
            assert mine.sum() == 1


def test_cuts_vary_by_epoch():
    lengths = np.full(50, 300)
    cuts = [first_cut(0, epoch, np.arange(50), 128) for epoch in range(4)]
    assert len({tuple(c) for c in cuts}) == 4
    starts = {int(s) for cut in cuts for s in cut_windows(np.arange(50), lengths, 128, cut)[1]}
    assert len(starts) > 100


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 400), st.integers(2, 130), st.floats(0, 1, exclude_max=True), st.integers(1, 1000))
def test_a_drawn_window_is_one_of_the_cuts(n, max_turns, draw, cut):
    cut = 1 + cut % (max_turns - 1)
    start, length = drawn_window(n, max_turns, cut, draw)
    _, starts, lengths = cut_windows(np.zeros(1, int), np.array([n]), max_turns, np.array([cut]))
    assert (start, length) in set(zip(starts.tolist(), lengths.tolist(), strict=True))


def test_mixing_is_the_same_everywhere():
    """Pinned: a change here changes the order of every run."""
    assert mix(1, 2, 3).item() == 7041752555471512236
    assert permutation(5, 0, np.arange(8)).tolist() == [7, 4, 3, 6, 2, 1, 5, 0]
    assert permutation(5, 1, np.arange(8)).tolist() == [4, 5, 6, 3, 0, 1, 2, 7]
    assert permutation(5, 0, np.arange(1000)).tolist() != permutation(5, 1, np.arange(1000)).tolist()
    assert sorted(permutation(5, 1, np.arange(1000)).tolist()) == list(range(1000))
    uniform = mix(9, np.arange(100_000)).astype(np.float64) / 2**64
    assert abs(uniform.mean() - 0.5) < 0.01


@settings(max_examples=60, deadline=None)
@given(lengths_lists, st.integers(0, 100), st.integers(2, 60))
def test_packs_hold_every_window_of_an_epoch_once(lengths, seed, max_turns):
    lengths = np.array(lengths)
    shape = shape_of(lengths, max_turns)
    plan = Plan(shape, seed=seed, n=len(lengths), lengths=lengths)
    seen = Counter()
    expected = Counter(zip(*(part.tolist() for part in plan.epoch_windows(0)), strict=True))
    newest = 0
    for pack in plan.packs():
        assert pack
        assert sum(window.length for window in pack) <= shape.turns
        padding = shape.turns - sum(window.length for window in pack)
        assert len(pack) + -(-padding // shape.max_turns) <= shape.segments
        seen.update((w.battle, w.start, w.length) for w in pack if w.epoch == 0)
        newest = max(newest, *(w.epoch for w in pack))
        if sum(seen.values()) >= sum(expected.values()):
            break
        assert newest <= 20 + 300 // len(lengths)
    assert seen == expected


def test_the_stream_repeats_and_ranks_share_it():
    lengths = np.random.default_rng(0).integers(2, 200, 300)
    shape = shape_of(lengths)
    packs = list(islice(Plan(shape, seed=3, n=300, lengths=lengths).packs(), 48))
    again = list(islice(Plan(shape, seed=3, n=300, lengths=lengths).packs(), 48))
    assert packs == again
    for world, accumulate in ((1, 1), (2, 2), (3, 2)):
        per_step = world * accumulate
        for start in (0, 2):
            for rank in range(world):
                past = [Drawn(start * per_step, shape.turns, shape.segments, 64)]
                mine = Plan(shape, seed=3, n=300, lengths=lengths).for_rank(rank, world, past)
                steps = 48 // per_step - start
                for step in range(steps):
                    for micro in range(accumulate):
                        assert next(mine) == packs[(start + step) * per_step + micro * world + rank]


def test_a_stream_goes_on_behind_packs_that_had_rows_left_and_no_segment():
    """As in a run that goes on with more segments: packs of the new size would have taken more windows."""
    lengths, few = np.full(60, 4), PackShape(96, 8, 50)
    packs = list(islice(Plan(few, seed=3, n=60, lengths=lengths).packs(), 3))
    assert max(map(len, packs)) < 8 < 96 // 4
    then = Plan(few._replace(segments=30), seed=3, n=60, lengths=lengths)
    packs += islice(then.packs([Drawn(3, few.turns, few.segments, 8)]), 3)
    assert Counter(window.battle for pack in packs for window in pack if window.epoch == 0) == Counter(range(60))


def test_unplanned_packs_hold_each_file_once_an_epoch():
    shape = PackShape(512, 40, 50)
    plan = Plan(shape, seed=3, n=70, battles=8)
    packs = list(islice(plan.packs(), 35))
    flat = [window for pack in packs for window in pack]
    for epoch in range(4):
        assert sorted(w.battle for w in flat if w.epoch == epoch) == list(range(70))
    assert {w.length for w in flat} == {0}
    for rank, world, start in ((0, 2, 3), (2, 3, 1)):
        past = [Drawn(start * world * 2, shape.turns, shape.segments, 8)]
        mine = list(islice(Plan(shape, seed=3, n=70, battles=8).for_rank(rank, world, past), 6))
        expected = packs[start * world * 2 + rank :: world]
        assert mine == expected[: len(mine)]


@pytest.mark.parametrize("kind", ["like real ones", "all long", "all short", "mixed"])
def test_padding_is_under_two_percent(kind):
    rng = np.random.default_rng(1)
    lengths = {
        "like real ones": np.clip(rng.lognormal(3.5, 0.6, 5000).astype(int), 2, 400),
        "all long": rng.integers(100, 375, 3000),
        "all short": rng.integers(4, 12, 8000),
        "mixed": np.concatenate([np.full(3000, 8), np.full(500, 128)]),
    }[kind]
    shape = pack_shape(BatchConfig(battles=64, turns=2688, segments=600 if kind == "all short" else None), 128, 41)
    packs = list(islice(Plan(shape, seed=0, n=len(lengths), lengths=lengths).packs(), 60))
    rows = sum(window.length for pack in packs for window in pack)
    assert rows > 0.98 * 60 * shape.turns


def test_each_epoch_has_cuts_draws_and_an_order_of_its_own():
    """Windows of one battle stand apart: side by side, a pack would be of few battles."""
    lengths = np.full(200, 300)
    plan = Plan(shape_of(lengths), seed=3, n=200, lengths=lengths)
    epochs = [list(zip(*(part.tolist() for part in plan.epoch_windows(epoch)), strict=True)) for epoch in (0, 1)]
    first, second = ({battle: length for battle, start, length in epoch if start == 0} for epoch in epochs)
    assert sum(first[battle] == second[battle] for battle in range(200)) < 20
    neighbours = [a[0] == b[0] for a, b in pairwise(epochs[0])]
    assert sum(neighbours) < 0.05 * len(neighbours)
    unknown = Plan(PackShape(512, 40, 50), seed=3, n=200, battles=8)
    flat = sorted(window for pack in islice(unknown.packs(), 50) for window in pack)
    pairs = [(flat[i], flat[i + 1]) for i in range(0, 400, 2)]
    assert all((a.battle, a.epoch, b.epoch) == (b.battle, 0, 1) or a.epoch == 1 for a, b in pairs)
    assert sum(a.start == b.start for a, b in pairs) < 20
    assert sum(abs(a.draw - b.draw) < 0.01 for a, b in pairs) < 20
    assert 0.4 < np.mean([window.draw for window in flat]) < 0.6


def test_packs_are_filled_to_their_last_row():
    lengths = np.full(400, 10)
    shape = PackShape(100, 40, 50)
    packs = [*islice(Plan(shape, seed=0, n=400, lengths=lengths).packs(), 30), *heldout_plan(lengths, shape)]
    assert len(packs) == 30 + 40
    assert {sum(window.length for window in pack) for pack in packs} == {100}


def test_short_windows_leave_segments_for_the_padding_behind_them():
    """Its pieces are of 50 rows at most: behind four windows of 4 rows it takes two of the six segments."""
    lengths, shape = np.full(400, 4), PackShape(100, 6, 50)
    packs = [*islice(Plan(shape, seed=0, n=400, lengths=lengths).packs(), 30), *heldout_plan(lengths, shape)]
    assert {len(pack) for pack in packs} == {4}


def test_a_draw_is_below_one_however_it_is_rounded(monkeypatch):
    """As a fraction of 2⁶⁴ the largest numbers are 1, and the window would begin behind the battle's end."""
    monkeypatch.setattr("data.sampler.mix", lambda *_: np.full(8, 2**64 - 1, dtype=np.uint64))
    pack = next(Plan(PackShape(512, 40, 50), seed=0, n=8, battles=8).packs())
    assert all(0.99 < window.draw < 1 for window in pack)


def test_nothing_is_lost_between_the_pieces_of_a_large_epoch():
    """It is listed piece by piece; files of unknown lengths as well."""
    lengths, shape = np.full(9000, 10), PackShape(1000, 140, 50)
    windows = (window for pack in Plan(shape, seed=0, n=9000, lengths=lengths).packs() for window in pack)
    seen = {window.battle for window in islice(windows, 9000 + POOL) if window.epoch == 0}
    unknown = (window for pack in Plan(shape, seed=0, n=9000, battles=100).packs() for window in pack)
    assert seen == {window.battle for window in islice(unknown, 9000)} == set(range(9000))


def test_no_window_waits_in_packs_of_one_longest_window():
    """Packs that hold no more than that (two battles a process, of many) take the oldest first too: else short windows
    wait for an epoch to end, and what is remembered of the order grows with every window drawn."""
    lengths = np.clip(np.random.default_rng(0).gamma(3, 14, 20_000).astype(int), 2, 400)
    plan = Plan(shape_of(lengths, max_turns=128, battles=1), seed=0, n=len(lengths), lengths=lengths)
    assert plan.shape.turns == 128
    battle, start, _ = plan.epoch_windows(0)
    place = {window: i for i, window in enumerate(zip(battle.tolist(), start.tolist(), strict=True))}
    windows = (window for pack in plan.packs() for window in pack)
    drawn = islice(windows, len(place))
    late = [i - place[w.battle, w.start] for i, w in enumerate(drawn) if w.epoch == 0]
    assert max(late) < 1000
    assert len(late) > len(place) - POOL


def test_order_hangs_on_keys_not_on_places():
    """The same battles at other places give the same packs."""
    rng = np.random.default_rng(4)
    lengths, keys = rng.integers(2, 90, 80), rng.integers(0, 2**63, 80).astype(np.uint64)
    moved = rng.permutation(80)
    shape = shape_of(lengths)
    rates = rng.random(80)
    for known in (True, False):
        a = Plan(shape, seed=3, n=80, keys=keys, rates=rates, lengths=lengths if known else None)
        b = Plan(shape, seed=3, n=80, keys=keys[moved], rates=rates[moved], lengths=lengths[moved] if known else None)
        for one, other in zip(islice(a.packs(), 30), islice(b.packs(), 30), strict=True):
            assert [w._replace(battle=moved[w.battle]) for w in other] == one


def test_rates_draw_without_replacement_in_proportion():
    rates = np.array([1.0] * 50 + [0.25] * 100 + [0.0] * 10)
    lengths = np.full(160, 10)
    plan = Plan(shape_of(lengths), seed=1, n=160, lengths=lengths, rates=rates)
    counts = np.zeros(160, dtype=int)
    for epoch in range(8):
        members = plan.members(epoch)
        assert 50 + 10 < len(members) < 50 + 40  # a quarter of the rare ones, not all of them every fourth epoch
        assert len(set(members.tolist())) == len(members)
        counts[members] += 1
    assert (counts[:50] == 8).all()
    assert (counts[50:150] == 2).all()
    assert (counts[150:] == 0).all()


def test_rejected_battles_are_left_out():
    lengths = np.array([10, 0, 12, 0])
    plan = Plan(shape_of(np.array([10])), seed=0, n=4, lengths=lengths)
    assert set(plan.epoch_windows(0)[0].tolist()) == {0, 2}
    with pytest.raises(ValueError, match="no battle is left"):
        Plan(shape_of(np.array([10])), seed=0, n=2, lengths=np.zeros(2, int))
    with pytest.raises(ValueError, match="no battle is left"):
        Plan(shape_of(np.array([10])), seed=0, n=2, rates=np.zeros(2))
    for rank in (-1, 2):
        with pytest.raises(ValueError, match="of 2 processes"):
            next(plan.for_rank(rank, 2))


@settings(max_examples=50, deadline=None)
@given(lengths_lists, st.integers(2, 60))
def test_heldout_packs_hold_every_window_in_order(lengths, max_turns):
    lengths = np.array(lengths)
    shape = shape_of(lengths, max_turns)
    flat = [window for pack in heldout_plan(lengths, shape) for window in pack]
    covered = [(w.battle, t) for w in flat for t in range(w.start, w.start + w.length - 1)]
    assert covered == [(i, t) for i, n in enumerate(lengths) for t in range(n - 1)]
    assert all(w.start % (max_turns - 1) == 0 for w in flat)


def test_sizes():
    assert pack_shape(BatchConfig(battles=64), 128, 41.0).turns == 2688
    assert pack_shape(BatchConfig(turns=3000), 128, 41.0).turns == 3000
    assert pack_shape(BatchConfig(battles=1), 128, 20.0).turns == 128
    assert pack_shape(BatchConfig(battles=1), 200, 20.0).turns == 200  # which holds one longest window
    # Segments: two a battle, or a longest window's worth of rows where packs are longer than that, and the padding's.
    assert pack_shape(BatchConfig(battles=64), 128, 41.0).segments == 2 * 64 + 21
    assert pack_shape(BatchConfig(battles=1, turns=3000), 128, 41.0).segments == 2 * 24 + 24
    assert pack_shape(BatchConfig(battles=64, segments=22), 128, 41.0).segments == 22
    with pytest.raises(ValueError, match=r"batch\.segments is 21; 2688 rows need 22 or more"):
        pack_shape(BatchConfig(battles=64, segments=21), 128, 41.0)
    with pytest.raises(ValueError, match=r"batch\.turns"):
        pack_shape(BatchConfig(turns=100), 128, 41.0)
    with pytest.raises(ValueError, match=r"batch\.segments"):
        pack_shape(BatchConfig(segments=3), 128, 41.0)
    with pytest.raises(ValueError, match=r"batch\.battles"):
        BatchConfig(battles=0)
    with pytest.raises(ValueError, match=r"batch\.plan"):
        BatchConfig(plan="random")


def plainly_filled(windows, shapes, pool):
    """As `fill`, by looking at each window that waits."""
    waiting, rest = windows[:pool], iter(windows[pool:])
    for shape in shapes:
        pack, room = [], shape.turns
        while room >= 2:
            found = waiting[:1]
            if pack and room < 2 * shape.max_turns:
                found = sorted((w for w in waiting if w.length <= room), key=lambda w: -w.length)[:1]
            if not found or not fits(found[0].length, room, len(pack), shape):
                break
            waiting.remove(found[0])
            waiting.append(next(rest))
            pack += found
            room -= found[0].length
        yield pack


@given(
    st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 40), st.integers(0, 3), st.integers(1, 3),
    st.sampled_from((5, 65_536)),
)  # fmt: skip
@settings(deadline=None)
def test_packs_are_those_of_a_plain_loop(seed, max_turns, pool, first, every, kept):
    """Whatever is forgotten of those taken, whoever of several processes asks, where segments are too few as well."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, max_turns + 1, 4000).tolist()
    windows = [Window(n, n % 7, length, n // 50) for n, length in enumerate(lengths)]
    columns = [[window[column] for window in windows] for column in range(3)]
    pieces = (Piece(*(column[at : at + 50] for column in columns), at // 50) for at in range(0, 4000, 50))
    shapes = []
    for _ in range(8):
        turns = max_turns * int(rng.integers(1, 4)) + int(rng.integers(0, max_turns))
        shapes.append(PackShape(turns, -(-turns // max_turns) + int(rng.integers(0, 8)), max_turns))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "KEPT", kept)
        found = list(fill(pieces, shapes, pool, first, every))
    assert found == list(plainly_filled(windows, shapes, pool))[first::every]
