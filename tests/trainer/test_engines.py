"""The same numbers whatever launches and drives the step; a process that is lost does not leave the others waiting."""

import os
import signal
import subprocess
import time

import psutil
import pytest

from launch.bench_engines import PLAIN, ROOT, ROWS, SETTINGS, Row, command_of, environment, launch, measure

QUICK = {Row("accelerate", 2, "zero1")}
DATA = str(ROOT / "data" / "sample")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A finished run of plain PyTorch in one process."""
    output = tmp_path_factory.mktemp("base") / "run"
    code, text = launch(PLAIN, output, f"data.path={DATA}")
    assert code == 0, text
    return output


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=[] if row in QUICK else pytest.mark.slow, id=str(row)) for row in ROWS]
)
def test_a_row_trains_resumes_and_exports_with_the_numbers_of_one_process(row, base, tmp_path):
    result = measure(row, base, tmp_path, DATA)
    if "refused" not in result:
        assert result["steps"] < 1e-4
        assert result["resumed"] < 1e-4
        assert result["parameters"] < 1e-3


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
    from trainer.config import ConfigError, load_config
    from trainer.setup import _deepspeed_plugin

    path = tmp_path / "zero.json"
    path.write_text(f'{{"zero_optimization": {{"stage": 1}}, "{key}": 1}}')
    with pytest.raises(ConfigError, match=key):
        _deepspeed_plugin(load_config(None, [f"deepspeed={path}"]), bf16=False)
    with pytest.raises(ConfigError, match="ds_configs"):
        _deepspeed_plugin(load_config(None, ["deepspeed=nowhere.json"]), bf16=False)


def test_sharding_one_process_is_refused(tmp_path):
    code, text = launch(PLAIN, tmp_path, f"data.path={DATA}", "parallel=fsdp2")
    assert code == 1
    assert "parallel=fsdp2" in text
