"""The bench of attention alone: its errors are real ones, its record and table complete."""

import json
import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from launch import bench_attention
from launch.bench_attention import differentiate, layer, measure
from model.attention import available_implementations, packed_attention, prepare
from tests.packs import random_pack

REAL_SECONDS = bench_attention.seconds


@pytest.fixture(autouse=True)
def timed_by_no_clock(monkeypatch):
    monkeypatch.setattr(bench_attention, "seconds", lambda run, device: (run(), 0.001)[1])


def test_errors_are_relative_to_the_reference():
    pack = random_pack(100, lengths=[60, 40])
    tensors = layer(pack, 2, 8, torch.device("cpu"))
    eager = differentiate(packed_attention, prepare(pack["segment"], pack["cu_seqlens"], 60, "eager"), *tensors)
    for scale, error in ((1, 0.0), (2, 0.5)):
        found = measure("sdpa", pack, tensors, tuple(scale * t for t in eager), 60)
        assert found["error_of_output"] == pytest.approx(error, abs=1e-5)
        assert found["error_of_gradients"] == pytest.approx(error, abs=1e-5)


def test_the_command_leaves_a_record_and_a_table(tmp_path):
    assert bench_attention.main(["--battles", "4", "--records", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "attention.json").read_text())
    assert list(record["results"]["implementations"]) == available_implementations("cpu")
    assert "| sdpa | 1.000 | 1.000 | 4.00 |" in (tmp_path / "attention.md").read_text()


def test_one_that_fails_is_said_beside_the_others(tmp_path, monkeypatch):
    def attend(q, k, v, layout):
        if layout.implementation == "sdpa":
            raise RuntimeError("in the kernel\nno such device")
        return packed_attention(q, k, v, layout)

    monkeypatch.setattr(bench_attention, "packed_attention", attend)
    assert bench_attention.main(["--battles", "4", "--records", str(tmp_path)]) == 1
    table = (tmp_path / "attention.md").read_text()
    assert "| sdpa | failed: no such device | | | |" in table
    assert "| eager | 1.000 |" in table


def test_a_nan_among_the_gradients_is_a_failure(tmp_path, monkeypatch):
    class SpoilsKeys(torch.autograd.Function):
        @staticmethod
        def forward(ctx, k):
            return k.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.nan

    def attend(q, k, v, layout):
        return packed_attention(q, SpoilsKeys.apply(k) if layout.implementation == "sdpa" else k, v, layout)

    monkeypatch.setattr(bench_attention, "packed_attention", attend)
    assert bench_attention.main(["--battles", "4", "--records", str(tmp_path)]) == 1
    assert "| sdpa | failed: output or gradients are not finite |" in (tmp_path / "attention.md").read_text()


def test_kernels_that_nobody_sees_take_no_time_of_zero(monkeypatch):
    """Where the profiler has no CUPTI it is silent: the times told were 0.000 ms, and the GPU 0.0% busy."""
    monkeypatch.setattr(bench_attention, "seconds", REAL_SECONDS)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    blind = SimpleNamespace(key_averages=list)
    monkeypatch.setattr(torch.profiler, "profile", lambda **_: nullcontext(blind))
    with pytest.raises(RuntimeError, match="saw no kernel"):
        bench_attention.seconds(lambda: None, torch.device("cuda"))
