"""From a configuration to the parts of a run: accelerator, network, objective. Nothing here trains."""

import json
import logging
import math
import os
import socket
import warnings
from dataclasses import fields
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import (
    DataLoaderConfiguration,
    DeepSpeedPlugin,
    DistributedType,
    GradientAccumulationPlugin,
    broadcast_object_list,
    gather_object,
)

from data.dataset import BattleDataset, DataConfig
from data.observation import space_named
from data.reward import REWARDS
from data.schema import SCHEMA_VERSION
from data.tokenizer import Tokenizer
from model.attention import choose_implementation
from model.modeling_turnwise import TurnwiseConfig, TurnwiseForOfflineRL, preset
from trainer.config import ModelChoice, RunConfig, scale_to_world
from trainer.errors import ConfigError
from trainer.finetune import Start
from trainer.objective import derived_support

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
    accelerator = Accelerator(
        mixed_precision=precision,
        # As a number it would give way to ACCELERATE_GRADIENT_ACCUMULATION_STEPS, of another run's launch perhaps.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.batch.accumulate),
        deepspeed_plugin=_deepspeed_plugin(config, wants_bf16) if wants_deepspeed else None,
        kwargs_handlers=handlers,
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


def _deepspeed_plugin(config: RunConfig, bf16: bool) -> DeepSpeedPlugin:
    """ZeRO facts from the file, everything else from the run's configuration. Raises ConfigError on a contradiction."""
    path = Path(config.deepspeed or os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", ""))
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"deepspeed={str(path)!r}: cannot be read ({error}): give a file of ds_configs/") from error
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
    if settings.get("zero_optimization", {}).get("stage", 0) == 0:
        raise ConfigError(
            f"{path}: asks for no ZeRO stage: set zero_optimization.stage to 1, 2 or 3, or leave deepspeed at null, "
            "which launches the same without DeepSpeed (DDP)"
        )
    if bf16:
        # DeepSpeed then steps with a gradient that is not finite, and says nothing: `TrainStep` sees to that.
        ours["bf16"] = {"enabled": True, "check_grad_overflow": False}
    return DeepSpeedPlugin(hf_ds_config={**settings, **ours})


def network_config(choice: ModelChoice, data: DataConfig, tokenizer: Tokenizer, reward_scale: float) -> TurnwiseConfig:
    """The model's configuration: preset, what the run changes of it, and the data's sizes and stamps."""
    space = space_named(data.space)
    known = {f.name for f in fields(ModelChoice)} - {"preset", "attention", "gradient_checkpointing"}
    changed = {name: getattr(choice, name) for name in known if getattr(choice, name) is not None}
    low, high = derived_support(data.reward, reward_scale)
    for name, needed in (("value_min", low), ("value_max", high)):
        chosen = getattr(choice, name)
        # Past the result's own value a support may be cut: long stalls are rare. Below it, every end of a battle is.
        result = math.copysign(
            max(abs(REWARDS[data.reward].win), abs(REWARDS[data.reward].loss)) * reward_scale, needed
        )
        if chosen is not None and abs(chosen) < abs(result):
            raise ConfigError(
                f"model.{name}={chosen} lies inside a decided battle's return, {result:g} (reward {data.reward!r} × "
                f"objective.reward_scale {reward_scale:g}): leave it null to derive it ({needed:g})"
            )
    sizes = {"value_min": low, "value_max": high, **preset(choice.preset), **changed}
    return TurnwiseConfig(
        **sizes,
        observation_space=space.name,
        vocabulary_hash=tokenizer.hash,
        reward_kind=data.reward,
        reward_scale=reward_scale,
        schema_version=SCHEMA_VERSION,
        heldout_share=data.heldout_share,
        split_by=data.split_by,
        vocab_size=len(tokenizer),
        n_words=space.n_words,
        n_numbers=space.n_numbers,
        layout=space.layout,
        max_turns=data.max_turns,
    )


def build_network(
    config: RunConfig, tokenizer: Tokenizer, device: torch.device, start: Start | None = None
) -> TurnwiseForOfflineRL:
    """A fresh network, its weights a function of the seed; or that of the model to start from."""
    torch.manual_seed(config.seed)
    if start is None:
        sizes = network_config(config.model, config.data, tokenizer, config.objective.reward_scale)
        network = TurnwiseForOfflineRL(sizes).to(device)
    else:
        network = start.network().to(device)
    network.attention = choose_implementation(
        config.model.attention, device, fp32=not computes_in_bf16(config, device.type == "cuda")
    )
    if config.model.gradient_checkpointing:
        network.gradient_checkpointing_on()
    return network


def check_stamps(model_config: TurnwiseConfig, data: DataConfig, tokenizer: Tokenizer, source: str) -> None:
    """Raises ConfigError naming the stamp in which a saved model and the data at hand differ (law 14)."""
    pairs = {
        "observation_space": data.space,
        "vocabulary_hash": tokenizer.hash,
        "reward_kind": data.reward,
        "schema_version": SCHEMA_VERSION,
    }
    for name, here in pairs.items():
        saved = getattr(model_config, name)
        if saved != here:
            raise ConfigError(
                f"{source}: the model's {name} is {saved!r} and the data's {here!r}: "
                "use the model's own (data.space, data.reward, its vocabulary.json), or train a new model"
            )


def open_battles(
    config: DataConfig, tokenizer: Tokenizer, accelerator: Accelerator
) -> tuple[BattleDataset, BattleDataset]:
    """Both sides of the split, the same battles on every process. Collective.

    The first process fills the index's cache; the others map it, and don't look for what was recorded since. Raises
    ConfigError, on every process, where they opened other battles: each would draw from a plan of its own.
    """
    with accelerator.main_process_first():
        train = BattleDataset(config, tokenizer, "train", scan=accelerator.is_main_process)
    if train.fingerprint() != broadcast_object_list([train.fingerprint()])[0]:
        # Of a machine that keeps indexes of its own: they may be of another day.
        train = BattleDataset(config, tokenizer, "train")
    heldout = BattleDataset(config, tokenizer, "heldout", beside=train)
    if accelerator.num_processes == 1:
        return train, heldout
    found = gather_object([[train.fingerprint(), heldout.fingerprint()]])
    if any(one != found[0] for one in found):
        counts = ", ".join(str(sum(n for n, _ in one)) for one in found)
        raise ConfigError(
            f"the processes found other battles than each other ({counts}): files came or changed while they started; "
            "start again, or train on a token cache, which stays as it is"
        )
    return train, heldout


def check_observations(packs: list[dict], tokenizer: Tokenizer, max_unknown: float) -> dict[str, float]:
    """Shares of unknown and of padding words among the first packs' real turns.

    Raises ConfigError over `max_unknown`, or where every word of a real turn is padding or `<blank>`: such a run
    would learn from nothing (the prior attempt's first version did).
    """
    words = torch.cat([pack["words"][pack["valid"]] for pack in packs])
    blank = words == tokenizer.id("<blank>")
    padding, unknown = words == tokenizer.pad_id, words == tokenizer.unknown_id
    shares = {
        "data/unknown_words": unknown.float().mean().item(),
        "data/padding_words": padding.float().mean().item(),
        "data/blank_words": blank.float().mean().item(),
    }
    if shares["data/unknown_words"] > max_unknown:
        raise ConfigError(
            f"{100 * shares['data/unknown_words']:.1f}% of the words are unknown to the vocabulary (at most "
            f"{100 * max_unknown:.0f}%, data.max_unknown_share): build one with `python -m data.prepare vocabulary`"
        )
    if (blank | padding).all(1).any():
        raise ConfigError("observations hold nothing but padding or <blank>: the battle files' states were not read")
    return shares
