"""What a run finds where it is launched: GPUs that are idle or too old, the processor's precision, engines."""

import pytest
import torch

from tests.trainer.conftest import SMALL
from trainer import world
from trainer.config import load_config
from trainer.train import main as train_main


@pytest.mark.parametrize(
    ("asked", "multiplies", "chosen"),
    [("auto", True, "bf16"), ("auto", False, "no"), ("fp32", True, "no"), ("bf16", False, "bf16")],
)
def test_precision_is_by_default_what_the_processor_multiplies(asked, multiplies, chosen, monkeypatch):
    capabilities = {"avx512_bf16": multiplies, "avx512_f": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    accelerator, _ = world.build_accelerator(load_config(None, [f"precision={asked}"]))
    assert accelerator.mixed_precision == chosen


def test_each_run_of_a_process_has_its_own_precision():
    """accelerate refused the second one, by words that told nobody of runs."""
    made = [world.build_accelerator(load_config(None, [f"precision={name}"]))[0] for name in ("bf16", "fp32")]
    assert [accelerator.mixed_precision for accelerator in made] == ["bf16", "no"]


def test_what_is_compiled_is_compiles_to_say(monkeypatch):
    """An answer once given to `accelerate config` compiled a run of `compile=false`, by its own settings."""
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    accelerator, _ = world.build_accelerator(load_config(None, ["compile=false"]))
    module = torch.nn.Linear(2, 2)
    assert accelerator.prepare_model(module) is module


@pytest.mark.parametrize(
    ("here", "environment", "said"),
    [(True, {}, True), (True, {"ACCELERATE_USE_CPU": "False"}, True), (True, {"ACCELERATE_USE_CPU": "true"}, False),
     (True, {"CUDA_VISIBLE_DEVICES": ""}, False), (False, {}, False)],
)  # fmt: skip
def test_a_gpu_that_pytorch_cannot_use_is_told_of(here, environment, said, tmp_path, monkeypatch, caplog):
    for name in ("CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(world, "NVIDIA", tmp_path / ("." if here else "absent"))
    world.build_accelerator(load_config(None, []))
    assert ("although an NVIDIA GPU is here" in caplog.text) == said


@pytest.mark.parametrize(
    ("asked", "native", "bf16"), [("auto", True, True), ("auto", False, False), ("bf16", False, True)]
)
def test_a_gpu_that_emulates_bf16_computes_in_fp32_unless_told(asked, native, bf16, monkeypatch):
    """A T4, say. Attention is chosen for what the run computes in, not for what `auto` might have meant."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    config = load_config(None, [f"precision={asked}"])
    assert world.computes_in_bf16(config, cuda=True) == bf16


def test_deepspeed_where_it_is_not_installed_is_refused_with_a_reason(cached, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(world, "find_spec", lambda package: None)
    settings = [*SMALL, f"data.path={cached}", "max_steps=1", f"output={tmp_path}"]
    assert train_main([*settings, "deepspeed=ds_configs/zero1.json"]) == 1
    assert "pip install" in capsys.readouterr().err
