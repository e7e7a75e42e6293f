"""The same losses whatever drives the step: one process, DDP, DeepSpeed ZeRO 1–3 under its launchers."""

import csv
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.conftest import SMALL

ROOT = Path(__file__).parents[2]
PYTHON = sys.executable
WATCHDOG = 240  # seconds: the first run compiles DeepSpeed's op (a minute), the rest takes about 30
TORCHRUN = [PYTHON, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=PORT", "-m", "trainer.train"]
ACCELERATE = [PYTHON, "-m", "accelerate.commands.launch", "--main_process_port=PORT", "--config_file=FILE", "-m"]
DEEPSPEED = [PYTHON, "-m", "deepspeed.launcher.runner", "--num_accelerators=2", "--master_port=PORT", "--module"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def losses(command, battles, output, *settings):
    """Losses and held-out likelihood by step of a short run; fails with the run's words, or after WATCHDOG seconds."""
    port = free_port()
    command = [part.replace("PORT", port) for part in command]
    # A place of its own for the op that DeepSpeed compiles, without the lock that a killed build leaves behind.
    extensions = ROOT / ".venv" / "torch_extensions"
    for lock in extensions.rglob("lock"):
        lock.unlink()
    environment = {
        "TORCH_EXTENSIONS_DIR": str(extensions),
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "PATH": f"{Path(PYTHON).parent}:{os.environ['PATH']}",
    }
    arguments = [
        *SMALL, f"data.path={battles}", f"output={output}", "max_steps=6", "log.every=1", "eval.every=0",
        "batch.battles=8", "batch.accumulate=2", "batch.plan=battles", "batch.turns=512", "optim.grad_clip=0.5",
        "objective.filter_warmup=3", "checkpoint.every=4", *settings,
    ]  # fmt: skip
    process = subprocess.Popen(
        [*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        text, _ = process.communicate(timeout=WATCHDOG)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, _ = process.communicate()
        pytest.fail(f"no end after {WATCHDOG} s: {' '.join(command)}\n{text[-3000:]}")
    assert process.returncode == 0, text[-4000:]
    with open(output / "training_log.csv", newline="") as handle:
        return [
            [float(row[name]) for name in ("loss/policy", "loss/critic", "optim/grad_norm")]
            for row in csv.DictReader(handle)
        ]


def assert_equal_runs(ours, theirs):
    assert len(ours) == len(theirs) == 6
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a == pytest.approx(b, rel=2e-3, abs=1e-4), step


@pytest.fixture(scope="module")
def alone(battles, tmp_path_factory):
    return losses([PYTHON, "-m", "trainer.train"], battles, tmp_path_factory.mktemp("alone") / "run")


def test_zero1_on_two_processes_under_accelerate_equals_one_process(alone, battles, tmp_path):
    file = ROOT / "launch" / "accelerate" / "cpu_2proc_zero1.yaml"
    command = [part.replace("FILE", str(file)) for part in ACCELERATE] + ["trainer.train"]
    assert_equal_runs(losses(command, battles, tmp_path / "run", "processes=2"), alone)


@pytest.mark.slow
def test_ddp_under_torchrun_equals_one_process(alone, battles, tmp_path):
    assert_equal_runs(losses(TORCHRUN, battles, tmp_path / "run", "processes=2"), alone)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate", "deepspeed"])
def test_every_stage_under_every_launcher_equals_one_process(alone, battles, tmp_path, stage, launcher):
    settings = ["processes=2"]
    if launcher == "accelerate":
        file = ROOT / "launch" / "accelerate" / f"cpu_2proc_zero{stage}.yaml"
        command = [part.replace("FILE", str(file)) for part in ACCELERATE] + ["trainer.train"]
    else:
        command = TORCHRUN if launcher == "torchrun" else [*DEEPSPEED, "trainer.train"]
        settings.append(f"deepspeed=ds_configs/zero{stage}.json")
    assert_equal_runs(losses(command, battles, tmp_path / "run", *settings), alone)


@pytest.mark.parametrize("key", ["train_batch_size", "gradient_clipping", "bf16"])
def test_a_zero_file_that_contradicts_the_run_is_refused(key, battles, tmp_path):
    from trainer.config import ConfigError, load_config
    from trainer.setup import _deepspeed_plugin

    path = tmp_path / "zero.json"
    path.write_text(f'{{"zero_optimization": {{"stage": 1}}, "{key}": 1}}')
    with pytest.raises(ConfigError, match=key):
        _deepspeed_plugin(load_config(None, [f"deepspeed={path}"]), bf16=False)
    with pytest.raises(ConfigError, match="ds_configs"):
        _deepspeed_plugin(load_config(None, ["deepspeed=nowhere.json"]), bf16=False)
