"""The world that a run was launched into: processes, devices, precision, engine. Everything that asks for one that is
not there ends here."""

import json
import logging
import os
import socket
import warnings
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import (
    DataLoaderConfiguration,
    DeepSpeedPlugin,
    DistributedType,
    GradientAccumulationPlugin,
    TorchDynamoPlugin,
)

from trainer.config import RunConfig, scale_to_world
from trainer.errors import ConfigError
from trainer.wording import flat

log = logging.getLogger(__name__)
NVIDIA = Path("/dev/nvidiactl")  # where its driver is loaded


def build_accelerator(config: RunConfig) -> tuple[Accelerator, RunConfig]:
    """The accelerator of the world that was launched, and the configuration scaled to that world.

    Raises ConfigError where that is not the world asked for.
    """
    asked = int(os.environ.get("WORLD_SIZE", "1"))
    config = scale_to_world(config, asked)
    wants_deepspeed = bool(config.deepspeed) or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    _check_launch(config, asked, wants_deepspeed)
    asked_for_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes")
    cuda = torch.cuda.is_available() and not asked_for_cpu
    if not cuda and not asked_for_cpu:
        _say_if_a_gpu_lies_idle()
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # left to find out, DeepSpeed warns across the progress display
    if wants_deepspeed and "RANK" not in os.environ:
        # Started alone: DeepSpeed would look for MPI to be told what a launcher tells.
        place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(place, MASTER_PORT=str(free_port()))
    if wants_deepspeed and not cuda:
        _leave_out_inference_op()
    if wants_deepspeed:
        # It calls torch by names that were changed, and each process would say so at its first step.
        warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    if asked > 1 and not cuda and not wants_deepspeed:
        # Read by accelerate where no launcher of its own has set it; without, it quietly runs a world of one.
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    wants_bf16 = computes_in_bf16(config, cuda)
    precision = "bf16" if wants_bf16 else "no"
    # Named on the CPU alone: accelerate would quietly run a world of one beside DeepSpeed's.
    backend = {"backend": "gloo"} if asked > 1 and not cuda else {}
    waiting = timedelta(minutes=config.timeout_minutes)
    handlers = [InitProcessGroupKwargs(timeout=waiting, **backend)] if asked > 1 else []
    _begin_a_world()
    accelerator = Accelerator(
        mixed_precision=precision,
        # As a number it would give way to ACCELERATE_GRADIENT_ACCUMULATION_STEPS, of another run's launch perhaps.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.batch.accumulate),
        deepspeed_plugin=_deepspeed_plugin(config, wants_bf16) if wants_deepspeed else None,
        kwargs_handlers=handlers,
        # `compile` says what is compiled, not ACCELERATE_DYNAMO_BACKEND, which an answer to `accelerate config` sets.
        dynamo_plugin=TorchDynamoPlugin(backend="no"),
        step_scheduler_with_optimizer=False,
        dataloader_config=DataLoaderConfiguration(dispatch_batches=False),
    )
    if wants_deepspeed != (accelerator.distributed_type == DistributedType.DEEPSPEED):
        raise ConfigError(
            f"DeepSpeed was asked for but accelerate runs {accelerator.distributed_type.value}: launch with a file of "
            "launch/accelerate, or set deepspeed=ds_configs/zero1.json under torchrun or the deepspeed launcher"
        )
    for name, expected in (("WORLD_SIZE", asked), ("processes", config.processes)):
        if expected is not None and accelerator.num_processes != expected:
            raise ConfigError(
                f"{name} asks for {expected} processes but the world has {accelerator.num_processes}: launch with "
                "`torchrun --nproc-per-node N -m trainer.train …` or an `accelerate launch` file of launch/accelerate"
            )
    return accelerator, config


def _begin_a_world() -> None:
    """Without this a process's first run decides for those after it: accelerate keeps one world for each process, and
    refuses another precision or DeepSpeed file. The states are not emptied: a run that is not done yet holds them."""
    for state in (PartialState, AcceleratorState, GradientState):
        state._shared_state = {}


def computes_in_bf16(config: RunConfig, cuda: bool) -> bool:
    """Whether `precision` means bf16 here: by default where the chip multiplies it, which are CUDA GPUs from Ampere on
    and CPUs with AVX-512 BF16; the others work it out in fp32, slower than fp32 itself."""
    if config.precision != "auto":
        return config.precision == "bf16"
    if cuda:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)  # absent from older PyTorch
    return bool(capabilities().get("avx512_bf16"))


def compiles(config: RunConfig, accelerator: Accelerator) -> bool:
    """Whether the run's step is compiled: by default on CUDA, and never under ZeRO 3."""
    asked = accelerator.device.type == "cuda" if config.compile is None else config.compile
    plugin = accelerator.state.deepspeed_plugin
    if asked and plugin is not None and plugin.zero_stage == 3:
        # They gather each module's parameters: 61 graphs instead of one, recompiled until Dynamo gives up.
        log.warning("compile: not under ZeRO 3, whose hooks break the graph at every module; stages 1 and 2 compile")
        return False
    return asked


def _say_if_a_gpu_lies_idle() -> None:
    """PyTorch falls back to the CPU without an error where the driver is older than its CUDA, a night's work lost."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if NVIDIA.exists() and not hidden and os.environ.get("RANK", "0") == "0":
        log.warning(
            "on the CPU, although an NVIDIA GPU is here: this PyTorch is built for %s and cannot use it. Update its "
            "driver, or install the build of PyTorch that the driver serves; ACCELERATE_USE_CPU=true if it is meant so",
            f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA",
        )


def _leave_out_inference_op() -> None:
    """Without this, DeepSpeed compiles its shared-memory all-reduce for CPUs, the best part of a minute where it never
    was compiled, and waits for ever on the lock of a build that was killed. Inference alone would call it."""
    import deepspeed  # takes seconds, and only runs with it come here

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _check_launch(config: RunConfig, asked: int, deepspeed: bool) -> None:
    """Raises ConfigError where the engine asked for cannot be."""
    if deepspeed and find_spec("deepspeed") is None:
        raise ConfigError(
            "DeepSpeed was asked for but is not installed: pip install -r requirements.txt, or leave deepspeed at null "
            "and launch without a DeepSpeed file of launch/accelerate"
        )
    for name in ("FSDP", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true":
            raise ConfigError(
                f"accelerate was told to shard by {name}, which the run would not be: launch with a file of "
                "launch/accelerate, or for FSDP2 with torchrun and parallel=fsdp2"
            )
    if config.optim.name == "muon" and (deepspeed or config.parallel == "fsdp2"):
        raise ConfigError(
            f"optim.name=muon does not go with {'DeepSpeed' if deepspeed else 'parallel=fsdp2'}: it needs whole "
            "matrices and finds them in flat pieces; set optim.name=adamw, or launch plain processes (DDP)"
        )
    if config.cuda_graphs:
        reasons = {
            "no CUDA device": not torch.cuda.is_available(),
            "compile=false": config.compile is False,
            f"{asked} processes": asked > 1,
            "DeepSpeed": deepspeed,
            # A replay overwrites what the one before gave, gradients among it.
            f"batch.accumulate={config.batch.accumulate}": config.batch.accumulate > 1,
        }
        if any(reasons.values()):
            raise ConfigError(
                f"cuda_graphs=true does not go with {', '.join(name for name, here in reasons.items() if here)}: leave "
                "it false, or train in one plain process on a CUDA device with compile=true and batch.accumulate=1"
            )
    if config.parallel == "fsdp2" and (deepspeed or asked == 1):
        other = "DeepSpeed" if deepspeed else "a world of one process"
        raise ConfigError(
            f"parallel=fsdp2 does not go with {other}: leave it at ddp, or launch several plain processes"
        )


def free_port() -> int:
    """A TCP port of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def deepspeed_file(config: RunConfig) -> str | None:
    """The file of DeepSpeed's settings: the run's, or the one that accelerate was given; None where neither is."""
    return config.deepspeed or os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE") or None


def _deepspeed_plugin(config: RunConfig, bf16: bool) -> DeepSpeedPlugin:
    """ZeRO facts from the file, everything else from the run's configuration. Raises ConfigError on a contradiction."""
    path = deepspeed_file(config)
    if path is None:
        raise ConfigError(
            "accelerate was told to use DeepSpeed by settings of its own, which are not read: give "
            "deepspeed_config_file in its file, as those of launch/accelerate do, or set "
            "deepspeed=ds_configs/zero1.json"
        )
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"deepspeed={path!r}: cannot be read ({error}): give a file of ds_configs/") from error
    if not isinstance(settings, dict) or not isinstance(settings.get("zero_optimization", {}), dict):
        raise ConfigError(f"{path}: give keys, as the files of ds_configs/ do, at zero_optimization too")
    ours = {
        "train_micro_batch_size_per_gpu": config.batch.battles,
        "gradient_accumulation_steps": config.batch.accumulate,
        "gradient_clipping": config.optim.grad_clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "timers": {"throughput": {"enabled": False}},  # it waits for the device twice a step
    }
    for name in (*ours, "train_batch_size", "bf16", "fp16", "optimizer", "scheduler"):
        if name in settings:
            raise ConfigError(f"{path}: {name!r} is set by the run's configuration: leave ZeRO facts alone in the file")
    if left := [name for name, value in flat(settings).items() if value == "auto"]:
        raise ConfigError(f"{path}: {left[0]} is 'auto', which transformers' Trainer alone fills in: give a value")
    if settings.get("zero_optimization", {}).get("stage", 0) == 0:
        raise ConfigError(
            f"{path}: asks for no ZeRO stage: set zero_optimization.stage to 1, 2 or 3, or leave deepspeed at null, "
            "which launches the same without DeepSpeed (DDP)"
        )
    if bf16:
        # DeepSpeed then steps with a gradient that is not finite, and says nothing: `TrainStep` sees to that.
        ours["bf16"] = {"enabled": True, "check_grad_overflow": False}
    return DeepSpeedPlugin(hf_ds_config={**settings, **ours})
