"""What the machine lacks, memory or a compiler: said in a line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import SMALL
from trainer.config import load_config, scale_to_world
from trainer.faults import out_of_memory, said_of
from trainer.loop import Run
from trainer.train import main as train_main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("error", "turns", "mend"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …"), None,
            "batch.battles=2 batch.accumulate=2 is",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), 256,
            "batch.battles=2 batch.accumulate=2 batch.turns=128 is",
        ),
        (RuntimeError("Failed to find C compiler. Please specify via CC"), None, "set compile=false"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None, None),
    ],
)  # fmt: skip
def test_what_the_machine_lacks_is_told_with_what_to_set(error, turns, mend, cached, tmp_path, monkeypatch, capsys):
    def fails(*_):
        raise error

    monkeypatch.setattr(Run, "_to_device", fails)
    settings = [f"data.path={cached}", f"output={tmp_path}", "max_steps=1", f"batch.turns={turns or 'null'}"]
    if mend is None:  # a fault, which keeps its traceback
        with pytest.raises(RuntimeError, match="shapes"):
            train_main([*SMALL, *settings])
        return
    assert train_main([*SMALL, *settings]) == 1
    said = capsys.readouterr().err
    assert str(error).split("\n")[0] in said
    assert "GPU 0" not in said
    assert mend in said


@pytest.mark.parametrize("scaling", ["keep", "multiply"])
@pytest.mark.parametrize(
    ("world", "battles", "accumulate", "turns"), [(8, 1024, 1, None), (8, 128, 2, 8192), (2, 6, 4, None)]
)
def test_the_smaller_packs_of_several_processes_are_smaller(monkeypatch, world, battles, accumulate, turns, scaling):
    """With the step shared out, half of the file's battles in twice as many packs came to the very packs that did not
    fit."""
    asked = [f"batch_scaling={scaling}", f"batch.turns={turns or 'null'}", "data.max_turns=64"]
    batch = [f"batch.battles={battles}", f"batch.accumulate={accumulate}"]
    config = load_config(None, [*asked, *batch])
    monkeypatch.setenv("WORLD_SIZE", str(world))
    said = said_of(torch.OutOfMemoryError("CUDA out of memory."), config)
    mend = re.search("how many fit; (.*) is the same step", said)[1].split()
    before, after = (scale_to_world(one, world).batch for one in (config, load_config(None, [*asked, *mend])))
    assert f"packs of batch.battles={before.battles} " in said
    assert (after.battles, after.accumulate) == (before.battles // 2, 2 * before.accumulate)
    assert after.turns == (turns and before.turns // 2)


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    ],
)
def test_a_library_that_finds_no_memory_is_out_of_memory(said):
    assert out_of_memory(RuntimeError(said))


def test_a_key_that_deepspeed_does_not_know_is_told_with_its_file():
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    config = load_config(None, ["deepspeed=mine.json"])
    with pytest.raises(ValueError, match="overlap_com") as raised:
        DeepSpeedZeroConfig(stage=2, overlap_com=False)
    told = "mine.json: DeepSpeed does not take it (overlap_com: Extra inputs are not permitted): see "
    assert said_of(raised.value, config).startswith(told)


@pytest.mark.slow
def test_without_a_compiler_that_is_said(cached, tmp_path):
    """As PyTorch raises it: several hundred lines down, wrapped twice."""
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path / 'run'}", "max_steps=1", "compile=true"]
    environment = {**os.environ, "PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    done = subprocess.run(
        [sys.executable, "-m", "trainer.train", *settings], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: torch.compile lacks a compiler or Python's headers (Invalid")
    assert "Traceback" not in done.stderr
