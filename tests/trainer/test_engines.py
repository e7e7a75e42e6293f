"""The same numbers whatever launches and drives the step; a process that is lost does not leave the others waiting."""

import csv
import io
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from launch import bench_engines
from launch.bench_engines import (
    PLAIN,
    ROOT,
    ROWS,
    SETTINGS,
    Row,
    command_of,
    curve,
    environment,
    launch,
    measure,
    settings_of,
    watched,
)
from tests.trainer.conftest import SIZES, SMALL
from trainer import checkpoint
from trainer.train import main as train_main

QUICK = {Row("accelerate", 2, "zero1")}
DATA = str(ROOT / "data" / "sample")
MATRIX = (*SIZES, f"data.path={DATA}")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A finished run of plain PyTorch in one process."""
    output = tmp_path_factory.mktemp("base") / "run"
    code, text = start_here(output, *MATRIX)
    assert code == 0, text
    return output


def start_here(output, *settings):
    """`launch` of the plain row, in this process: half of a short run is its libraries' start."""
    said, trainers = io.StringIO(), logging.getLogger("trainer")
    handler, level = logging.StreamHandler(said), trainers.level
    trainers.addHandler(handler)
    trainers.setLevel(logging.INFO)
    try:
        return train_main(settings_of(output, *settings)), said.getvalue()
    finally:
        trainers.removeHandler(handler)
        trainers.setLevel(level)


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=[] if row in QUICK else pytest.mark.slow, id=str(row)) for row in ROWS]
)
def test_a_row_trains_resumes_and_exports_with_the_numbers_of_one_process(row, base, tmp_path, monkeypatch):
    printed = []

    def started(which, output, *settings):
        printed.append(start_here(output, *settings) if which == PLAIN else launch(which, output, *settings))
        return printed[-1]

    monkeypatch.setattr(bench_engines, "launch", started)
    result = measure(row, base, tmp_path, *MATRIX)
    assert "FutureWarning" not in printed[0][1]  # of a library, which nobody here can mend
    assert "built successfully" not in printed[0][1]  # compiling what training never calls takes a minute
    if "refused" not in result:
        assert result["steps"] < 1e-4
        assert result["resumed"] < 1e-4
        assert result["parameters"] < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "graphs"), [("zero1", 1), ("zero2", 1), ("zero3", 0)])
def test_deepspeed_leaves_the_compiled_step_one_graph(cached, tmp_path, engine, graphs):
    """In bf16, as on a GPU, and one frame: DeepSpeed's hooks around the module, were they compiled with it, would be
    twenty more, guarded by what changes at every step. ZeRO 3 has hooks in every module, and is not compiled."""
    out = tmp_path / "counted.json"
    settings = [
        *SMALL, f"data.path={cached}", f"output={tmp_path}", f"deepspeed=ds_configs/{engine}.json", "max_steps=3",
        "compile=true", "precision=bf16", "batch.battles=2", "model.num_layers=1", "model.critics=2",
    ]  # fmt: skip
    command = [sys.executable, "-m", "tests.trainer.compiled_steps", str(out), *settings]
    subprocess.run(command, check=True, timeout=200)
    counted = json.loads(out.read_text())
    assert (counted["frames"], counted["graphs"], counted["breaks"]) == (graphs, graphs, {})
    assert all(math.isfinite(loss) for loss in counted["losses"])


def start(row, output, *settings, module="trainer.train", **variables):
    """A row of the matrix launched with other settings than the matrix's; its exit code and what it printed."""
    command = [module if part == "trainer.train" else part for part in command_of(row)]
    settings = [*SETTINGS, f"data.path={DATA}", f"output={output}", *settings]
    return watched([*command, *settings], output, {**environment(), **variables})


@pytest.mark.slow
def test_a_deadlock_is_ended_by_the_watchdog(tmp_path, monkeypatch):
    """One of two processes stops for good in mid-training: the other waits, and the launch ends with a word."""
    monkeypatch.setattr(bench_engines, "SILENCE_S", 10)
    with pytest.raises(TimeoutError, match="not a word for 10 s"):
        start(
            Row("torchrun", 2, "plain"), tmp_path, "max_steps=5000", "timeout_minutes=5",
            module="tests.trainer.planted", TURNWISE_PLANTED="4", TURNWISE_PLANTED_RANK="1",
            TURNWISE_PLANTED_WHAT="stop",
        )  # fmt: skip
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]


PLANTED = [
    (Row("alone", 1, "zero1"), "fp32"), (Row("alone", 1, "zero2"), "bf16"), (Row("alone", 1, "zero3"), "bf16"),
    (Row("torchrun", 2, "plain"), "fp32"), (Row("torchrun", 2, "fsdp2"), "fp32"), (Row("torchrun", 2, "zero2"), "bf16"),
    (Row("torchrun", 2, "zero3"), "fp32"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("row", "precision"), PLANTED, ids=lambda part: str(part))
def test_nan_on_one_process_is_skipped_by_all_and_twenty_go_back(row, precision, tmp_path):
    """Three single ones are skipped; twenty in a row go back to the last checkpoint and on with other data."""
    places = " ".join(map(str, (2, 3, 6, *range(12, 32))))
    code, text = start(
        row, tmp_path, f"precision={precision}", "batch.accumulate=1", "checkpoint.every=4", "max_steps=36",
        module="tests.trainer.planted", TURNWISE_PLANTED=places,
        **({"TURNWISE_PLANTED_RANK": "1"} if row.world > 1 else {}),
    )  # fmt: skip
    assert code == 0, text
    with open(tmp_path / "training_log.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(line["step"]) for line in rows] == list(range(1, 37))
    assert [int(line["step"]) for line in rows if float(line["optim/skipped"])] == [3, 4, 7]
    noted = [json.loads(line)["step"] for line in (tmp_path / "skipped_batches.jsonl").read_text().splitlines()]
    assert sorted(noted) == sorted([3, 4, 7, *range(13, 33)] * row.world)  # each process notes its own batches
    state, saved = checkpoint.read(checkpoint.step_folder(tmp_path, 36))
    assert state.updates == 33
    assert [packs for packs, *_ in saved["drawn"]] == [(36 + 20) * row.world]
    assert all(value.isfinite().all() for value in state.network.values())


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero1", "zero2", "zero3"])
def test_bf16_under_deepspeed_stays_with_plain_bf16(engine, tmp_path):
    """Twenty steps: fp32 masters under bf16 forwards on both sides. DeepSpeed also keeps bf16 gradients.

    By imitation: the binary filter is a sign, and advantages of a fresh network are near zero.
    """
    curves = []
    # AdamW's first step is little but the gradient's signs, which bf16 turns where it is near zero: it is a small one.
    settings = [
        "precision=bf16", "objective.filter=imitation", "optim.warmup_steps=10", "max_steps=20", "checkpoint.every=20",
    ]  # fmt: skip
    for row in (PLAIN, Row("alone", 1, engine)):
        code, text = start(row, tmp_path / row.engine, *settings)
        assert code == 0, text
        curves.append(curve(tmp_path / row.engine))
    losses = [np.array([figures[:2] for figures in one.values()]) for one in curves]
    assert losses[0].shape == losses[1].shape == (20, 2)
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)


@pytest.mark.slow
def test_a_lost_process_ends_the_others_within_a_minute(tmp_path):
    """kill -9 of one of two, in mid-training: the launch ends by itself and says who."""
    row = Row("torchrun", 2, "plain")
    arguments = [*SETTINGS, f"data.path={DATA}", f"output={tmp_path}", "max_steps=5000", "checkpoint.every=5"]
    with open(tmp_path / "log.txt", "w+") as printed:
        process = subprocess.Popen(
            [*command_of(row), *arguments], cwd=ROOT, stdout=printed, stderr=printed, env=environment(),
            start_new_session=True,
        )  # fmt: skip
        try:
            until = time.monotonic() + 120
            while not list(tmp_path.glob("step_*/manifest.json")):
                assert process.poll() is None
                assert time.monotonic() < until, "no checkpoint within 120 s"
                time.sleep(0.2)
            victim = next(p for p in psutil.Process(process.pid).children() if "trainer.train" in " ".join(p.cmdline()))
            os.kill(victim.pid, signal.SIGKILL)
            assert process.wait(timeout=60) != 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        printed.seek(0)
        assert "-9" in printed.read()


@pytest.mark.parametrize("key", ["train_batch_size", "gradient_clipping", "bf16"])
def test_a_zero_file_that_contradicts_the_run_is_refused(key, tmp_path):
    from trainer.config import load_config
    from trainer.errors import ConfigError
    from trainer.world import _deepspeed_plugin

    path = tmp_path / "zero.json"
    path.write_text(f'{{"zero_optimization": {{"stage": 1}}, "{key}": 1}}')
    with pytest.raises(ConfigError, match=key):
        _deepspeed_plugin(load_config(None, [f"deepspeed={path}"]), bf16=False)
    for stage in ({}, {"zero_optimization": {"stage": 0}}):
        path.write_text(json.dumps(stage))
        with pytest.raises(ConfigError, match="no ZeRO stage"):
            _deepspeed_plugin(load_config(None, [f"deepspeed={path}"]), bf16=False)
    with pytest.raises(ConfigError, match="ds_configs"):
        _deepspeed_plugin(load_config(None, ["deepspeed=nowhere.json"]), bf16=False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", r"zero\.json: give keys"),
        ('{"zero_optimization": 2}', r"zero\.json: give keys"),
        (
            '{"zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"}}',
            "zero_optimization.reduce_bucket_size is",
        ),
    ],
)
def test_a_zero_file_of_another_form_is_refused_by_its_name(content, said, tmp_path):
    from trainer.config import load_config
    from trainer.errors import ConfigError
    from trainer.world import _deepspeed_plugin

    path = tmp_path / "zero.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=said):
        _deepspeed_plugin(load_config(None, [f"deepspeed={path}"]), bf16=False)


def test_deepspeed_by_accelerates_own_settings_is_refused_as_such(monkeypatch):
    """What `accelerate config` writes where its question for a file is answered with no."""
    from trainer.config import load_config
    from trainer.errors import ConfigError
    from trainer.world import _deepspeed_plugin

    monkeypatch.delenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", raising=False)
    with pytest.raises(ConfigError, match="give deepspeed_config_file in its file"):
        _deepspeed_plugin(load_config(None, []), bf16=False)


def test_sharding_one_process_is_refused(tmp_path, capsys):
    assert train_main([*SETTINGS, f"output={tmp_path}", f"data.path={DATA}", "parallel=fsdp2"]) == 1
    assert "parallel=fsdp2" in capsys.readouterr().err
