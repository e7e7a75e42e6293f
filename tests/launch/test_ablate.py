"""The paired comparison of the ablation, against a plain loop."""

import numpy as np
import pytest

from launch.ablate import BASE, excess, table
from trainer.scores import RESAMPLES


def test_excess_against_a_plain_loop():
    rng = np.random.default_rng(3)
    battles = np.array([f"b{i}" for i in rng.integers(0, 12, 200)])
    base = rng.gamma(2.0, 1.0, 200)
    arm = base * 1.01 + rng.normal(0, 0.02, 200)
    names = sorted(set(battles))
    draws = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    ratios = []
    for draw in draws:
        apart = whole = 0.0
        for unit in draw:
            inside = battles == names[unit]
            apart += (arm[inside] - base[inside]).sum()
            whole += base[inside].sum()
        ratios.append(apart / whole)
    found = excess(arm, base, battles)
    assert found["mean"] == pytest.approx(arm.mean() / base.mean() - 1)
    assert found["low"] == pytest.approx(np.percentile(ratios, 2.5))
    assert found["high"] == pytest.approx(np.percentile(ratios, 97.5))
    assert found["low"] < found["mean"] < found["high"]


def test_the_table_has_a_line_per_arm():
    row = {
        "parameters": 1_220_000, "decisions": 27_000, "battles": 500, "nll": 1.64, "top1": 0.36, "turns_per_s": 1000.0,
        "auc": 0.7, "lr": 1e-3, "nll_by_lr": {"0.0003": 1.7, "0.001": 1.64},
        "excess_nll": {"mean": 0.01, "low": -0.002, "high": 0.022},
        "play": [{"opponent": "random", "win_rate": 0.9, "interval95": [0.8, 0.95]}],
    }  # fmt: skip
    text = table("command", {BASE: row, "transformer": row})
    rates = "0.001 (0.0003: 1.7000, 0.001: 1.6400)"
    told = "1.6400 | +1.00% [-0.20%, +2.20%] | 36.0% | 0.700 | 1000 | 90% [80%, 95%] |  |  |"
    assert f"| transformer | 1.22M | {rates} | {told}" in text
