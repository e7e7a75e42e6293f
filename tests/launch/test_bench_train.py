"""The bench of training measures what it says: the prior's padded layout computes the packed loss."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from data.lock import hold
from launch import bench_train, record
from launch.machine import cpu_seconds
from launch.part_clock import PartClock, TimedStep
from launch.prior_recipe import attend_by_rows, pad_to_longest
from model.attention import choose_implementation
from tests.packs import random_pack, tiny_network
from trainer.config import RunConfig
from trainer.guard import GuardConfig, SpikeGuard
from trainer.objective import ObjectiveConfig, OfflineRL
from trainer.optim import OptimConfig
from trainer.step import TrainStep

LENGTHS = [5, 31, 2, 17, 9]  # windows; three rows of padding follow


def pack_with_padding():
    turns = sum(LENGTHS) + 3
    pack = random_pack(turns=turns, lengths=[*LENGTHS, 3], seed=3)
    padding = slice(turns - 3, turns)
    for key in ("legal", "action_known", "decision", "done", "valid"):
        pack[key][padding] = False
    pack["windows"][: len(LENGTHS)] = 7
    return pack


def test_padded_rows_hold_the_windows_and_padding_from_the_padding_row():
    pack, padded = pack_with_padding(), pad_to_longest(pack_with_padding())
    rows = padded["words"].view(len(LENGTHS), max(LENGTHS), -1)
    start = 0
    for row, valid, length in zip(rows, padded["valid"].view(len(LENGTHS), -1), LENGTHS, strict=True):
        assert torch.equal(row[:length], pack["words"][start : start + length])
        assert torch.equal(row[length:], pack["words"][-1:].expand(max(LENGTHS) - length, -1))
        assert valid.tolist() == [True] * length + [False] * (max(LENGTHS) - length)
        start += length
    assert padded["cu_seqlens"].tolist() == [i * max(LENGTHS) for i in range(len(LENGTHS) + 1)]


def test_a_pack_without_a_padding_row_is_refused():
    full = random_pack(turns=sum(LENGTHS), lengths=LENGTHS)
    full["windows"][: len(LENGTHS)] = 7
    with pytest.raises(ValueError, match="padding row"):
        pad_to_longest(full)


@pytest.mark.parametrize("by_rows", [True, False])
@pytest.mark.parametrize("encoder", ["transformer", "blocks"])
def test_prior_layouts_give_the_packed_loss_and_gradients(encoder, by_rows):
    """By dense SDPA over [rows, length], and as segments of equal length: the packed computation, wastefully."""
    results = []
    for layout in (lambda pack: pack, pad_to_longest):
        network = tiny_network(turn_encoder=encoder, num_layers=2)
        network.attention = choose_implementation("sdpa", "cpu")
        if layout is pad_to_longest and by_rows:
            attend_by_rows(network)
        objective = OfflineRL(network, ObjectiveConfig())
        pack = layout(pack_with_padding())
        loss, _ = objective(pack, objective.counts(pack), torch.tensor([0, 2]), torch.ones(()))
        loss.backward()
        results.append((loss.detach(), [p.grad for p in objective.parameters() if p.grad is not None]))
    (packed, expected), (padded, gradients) = results
    torch.testing.assert_close(padded, packed, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients, expected, rtol=1e-3, atol=1e-5)


def test_the_timed_step_is_the_step():
    guard = SpikeGuard(GuardConfig(spike=6.0), torch.device("cpu"))
    parts = (SimpleNamespace(distributed_type="NO"), torch.nn.Linear(2, 2), None, None)
    step = TrainStep(*parts, OptimConfig(), 3, 100, guard, object())
    timed = vars(TimedStep(step, PartClock(torch.device("cpu"))))
    assert {name: timed[name] for name in vars(step) if name != "module"} == {
        name: part for name, part in vars(step).items() if name != "module"
    }


def test_cpu_seconds_are_those_of_child_processes_too():
    before = cpu_seconds()
    work = "import time\nwhile time.process_time() < 0.4: pass\nprint(flush=True)\ninput()"
    child = subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    living = cpu_seconds() - before
    child.communicate(b"\n")
    assert 0.35 < living <= cpu_seconds() - before + 0.02


def test_a_record_names_this_checkouts_commit_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    head = ["git", "-C", str(record.ROOT), "rev-parse", "--short", "HEAD"]
    expected = subprocess.run(head, capture_output=True, text=True).stdout.strip() or "not a git checkout"
    assert record.commit().rstrip("+") == bench_train.commit().rstrip("+") == expected


def test_a_bench_beside_a_run_in_the_default_folder(battles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "cache"))
    (output := Path(RunConfig().output)).mkdir(parents=True)
    with hold(output):
        options = bench_train.parse(["--mode", "default", "--data", str(battles), "--battles", "2", "--workers", "0"])
        bench = bench_train.Bench(options)
    assert bench.run.output != output
    assert [path.name for path in output.iterdir()] == [".lock"]


@pytest.fixture
def measured(monkeypatch):
    """The bench's processes, each the record of before in its place; a mode in the set returned fails."""
    known = json.loads((record.RECORDS / "bench_train.json").read_text())["bench_train, tiny, AMD EPYC"]
    failing = set()

    def child(command, **_):
        mode = command[len(command) - 1 - command[::-1].index("--mode") + 1]
        if mode not in failing:
            Path(command[-1]).write_text(json.dumps(known[mode]))
        return SimpleNamespace(returncode=int(mode in failing))

    monkeypatch.setattr(bench_train, "commit", lambda: "0")
    monkeypatch.setattr(bench_train.subprocess, "run", child)
    return failing


def test_a_mode_measured_alone_leaves_the_record_of_both(tmp_path, measured):
    for mode in ("both", "default"):
        assert bench_train.main(["--mode", mode, "--records", str(tmp_path)]) == 0
    entries = json.loads((tmp_path / "bench_train.json").read_text())
    assert ["default_over_prior" in entry for entry in entries.values()] == [True, False]


def test_the_first_mode_is_on_record_when_the_second_fails(tmp_path, measured):
    measured.add("prior")
    assert bench_train.main(["--records", str(tmp_path)]) == 1
    (entry,) = json.loads((tmp_path / "bench_train.json").read_text()).values()
    assert "default alone" in entry["name"]
    assert "prior" not in entry


@pytest.mark.slow
def test_both_modes_are_recorded_with_their_ratio(tmp_path, monkeypatch):
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "cache"))
    arguments = ["--steps", "1", "--warmup", "1", "--battles", "2", "--workers", "0", "--records", str(tmp_path)]
    assert bench_train.main(arguments) == 0
    (entry,) = json.loads((tmp_path / "bench_train.json").read_text()).values()
    prior, default = (entry[mode]["loader_included"] for mode in ("prior", "default"))
    for figures in (prior, default):
        assert 0 <= figures["padding_share"] < 1
        # A single step: its parts are all of it.
        assert sum(figures["parts_s"].values()) == pytest.approx(figures["seconds"], rel=1e-6)
    expected = default["turns"] / default["seconds"] / (prior["turns"] / prior["seconds"])
    assert entry["default_over_prior"]["loader_included/turns_per_s"] == pytest.approx(expected)
    assert {"turn encoder", "trunk", "heads and loss"} <= set(entry["default"]["parts_eager_s"])
    assert "default ÷ prior" in (tmp_path / "bench_train.md").read_text()


@pytest.mark.slow
def test_a_mode_is_measured_under_deepspeed(tmp_path, monkeypatch):
    """Whose engine the step asks for the gradients' norm; the clock around the forward stood in its place."""
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "cache"))
    arguments = ["--mode", "default", "--steps", "1", "--warmup", "1", "--battles", "2", "--workers", "0"]
    engine = ["--set", "deepspeed=ds_configs/zero1.json"]
    assert bench_train.main([*arguments, "--records", str(tmp_path), *engine]) == 0
    (entry,) = json.loads((tmp_path / "bench_train.json").read_text()).values()
    assert entry["default"]["engine"] == "DeepSpeed"
    assert entry["default"]["loader_included"]["seconds"] > 0
