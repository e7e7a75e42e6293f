"""Scores on the way: the battles are read once, and the same figures come of them; a GPU's products are given back."""

import contextlib
from dataclasses import replace

import pytest
import torch

from tests.trainer.conftest import run_of
from trainer import quick_score
from trainer.quick_score import QuickScore, tf32


@pytest.fixture
def judge(cached, tmp_path, monkeypatch):
    """The run's own, its network, and the packs that were read so far."""
    run, read, packs = run_of(cached, tmp_path, "max_steps=1"), [], quick_score.heldout_packs
    monkeypatch.setattr(quick_score, "heldout_packs", lambda *a: (read.append(pack) or pack for pack in packs(*a)))
    return QuickScore(run.heldout, run.accelerator, battles=2), run.objective.network, read


def test_held_out_battles_are_read_once(judge):
    score, network, read = judge
    first = score(network)
    count = len(read)
    assert count > 1
    assert score(network) == first
    assert len(read) == count


def test_more_than_fits_is_read_each_time(judge, monkeypatch):
    score, network, read = judge
    first, a_reading = score(network), len(read)
    size = sum(values.numel() * values.element_size() for pack in read for values in pack.values())
    for limit, readings in ((size - 1, 2), (size, 1)):
        monkeypatch.setattr(quick_score, "KEPT_BYTES", limit)
        score.kept = None
        read.clear()
        assert [score(network), score(network)] == [first, first]
        assert len(read) == readings * a_reading


def test_an_evaluation_cut_short_keeps_nothing(judge):
    score, network, read = judge
    next(iter(score.packs()))
    count = len(read)
    whole = score(network)
    assert len(read) > 2 * count
    assert score(network) == whole


def test_a_reward_that_tells_no_result_has_no_calibration(judge, monkeypatch):
    score, network, _ = judge
    found = score(network)
    assert "value/calibration@0.999" in found
    monkeypatch.setitem(quick_score.REWARDS, "shaped", replace(quick_score.REWARDS["shaped"], win=0.0, loss=0.0))
    assert score(network) == {name: value for name, value in found.items() if not name.startswith("value/")}


def test_products_are_as_before_behind_an_evaluation():
    """Set anew they would have the compiler start over."""
    before = torch.get_float32_matmul_precision()
    with tf32(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == before
    found = []
    with contextlib.suppress(ValueError), tf32(torch.device("cuda")):
        found.append(torch.get_float32_matmul_precision())
        raise ValueError
    assert found == ["high"]
    assert torch.get_float32_matmul_precision() == before
