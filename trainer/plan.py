"""Memory, time and money of a run, told before it is started.

    python -m trainer.plan --config launch/runs/h100_1gpu.yaml --gpus 1,8 --gpu h100-80gb [--battles 4000000] [a.b=c …]

Counted: parameters, FLOPs and the memory that a step works in (from the modules, on the meta device), bytes that cross
the links a step. Assumed, and printed: the share of the chip's peak that is reached, where no record of
`launch/records/bench_train.json` was taken on that GPU; the links' speeds; the price. Sources: ZeRO's memory and
communication, Rajbhandari et al. 2020 (arXiv 1910.02054); ring collectives, Patarasuk and Yuan 2009.
"""

import argparse
import json
import sys
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data.collate import PackLayout
from data.observation import space_named
from data.sampler import PackShape, pack_shape
from data.terminal import first_line, say, steady_output
from data.tokenizer import Tokenizer
from model.modeling_turnwise import TurnwiseForOfflineRL
from trainer.config import RunConfig, load_config, scale_to_world
from trainer.errors import ConfigError
from trainer.finetune import starting_model
from trainer.flops import PEAK_FLOPS, flops_per_turn
from trainer.limits import positive
from trainer.muon import matrices_of
from trainer.objective import OfflineRL, Targets
from trainer.setup import network_config
from trainer.wording import duration

GIB = 2**30
STAGES = ("plain", "zero1", "zero2", "zero3", "fsdp2")
TURNS_PER_BATTLE = 41.0  # of the reference battles: DESIGN's histogram
BF16_SHARE = 0.8  # of fp32 working memory under bf16 autocast; counted for what is kept: 0.67 (tiny), 0.79 (small)
OVERHEAD_GIB = 1.5  # CUDA's context, kernels' workspaces, the allocator's gaps
# Seconds in which the host launches a micro-batch of a compiled step, counted for `base` on the stand-in for CUDA
# (launch/LOG.md): fewer layers take less. Of ZeRO 3 and FSDP2, which are not compiled whole, the least.
HOST_S = {"plain": 0.010, "zero1": 0.015, "zero2": 0.015, "zero3": 0.021, "fsdp2": 0.021}
HOST_GRAPHS_S = 0.0035  # with CUDA graphs, which one process alone may have
RECORD = Path(__file__).parents[1] / "launch" / "records" / "bench_train.json"


@dataclass(frozen=True)
class Gpu:
    """Of the vendor's data sheets: memory in GiB, dense peaks in FLOP/s (fp32 without TF32, which torch leaves off),
    NVLink, or PCIe where there is none, in bytes/s a direction."""

    memory: float
    bf16: float
    fp32: float
    link: float

    def peak(self, bf16: bool) -> float:
        return self.bf16 if bf16 else self.fp32


GPUS = {
    "h100-80gb": Gpu(79.6, PEAK_FLOPS["H100"], 67e12, 450e9),
    "h200-141gb": Gpu(139.8, PEAK_FLOPS["H200"], 67e12, 450e9),
    "a100-80gb": Gpu(79.3, PEAK_FLOPS["A100"], 19.5e12, 300e9),
    "a100-40gb": Gpu(39.4, PEAK_FLOPS["A100"], 19.5e12, 300e9),
    "b200-180gb": Gpu(178.0, PEAK_FLOPS["B200"], 75e12, 900e9),
    "l40s-48gb": Gpu(44.4, PEAK_FLOPS["L40S"], 91.6e12, 32e9),
    "rtx4090-24gb": Gpu(23.5, PEAK_FLOPS["RTX 4090"], 82.6e12, 32e9),
    "rtx3090-24gb": Gpu(23.5, PEAK_FLOPS["RTX 3090"], 35.6e12, 32e9),
}
GPUS_PER_NODE = 8


@dataclass(frozen=True)
class Counted:
    """What the modules say. Bytes are of fp32 and a turn."""

    parameters: int
    layer: int  # parameters of one trunk layer: what ZeRO 3 and FSDP2 gather at once
    targets: int
    working_bytes: float
    flops: float  # of a training step, a turn
    averaged: int = 0  # parameters of the weights' average (optim.ema)
    moments: int = 0  # numbers that the optimizer keeps of the gradients: AdamW's two a parameter


@dataclass(frozen=True)
class Assumed:
    """Figures that are not counted here."""

    mfu: float = 0.30  # share of the peak
    mfu_source: str = "assumed: no record was taken on this GPU"
    # Bytes/s a direction out of one machine (eight adapters of 400 Gb/s). NCCL lays as many rings as there are
    # adapters, and each leaves a machine once: a collective runs at this speed, not at one adapter's.
    network: float = 400e9
    overlap: float = 0.5  # share of the compute time behind which communication can hide


def count(config: RunConfig) -> Counted:
    """Build the network on the meta device and count. Raises ConfigError, ValueError."""
    config, tokenizer = _resolved(config)
    with torch.device("meta"):
        network = TurnwiseForOfflineRL(
            network_config(config.model, config.data, tokenizer, config.objective.reward_scale)
        )
    network.attention = "sdpa"
    if config.model.gradient_checkpointing:
        network.gradient_checkpointing_on()
    pack = empty_pack(config, turns=512)
    layer = sum(p.numel() for p in network.model.trunk.layers[0].parameters())
    parameters = sum(p.numel() for p in network.parameters())
    whole = config.objective.target == "network"
    flops = flops_per_turn(network.config, pack, whole)
    recomputed = 0.0
    if config.model.gradient_checkpointing:
        recomputed = flops["trunk"] + (flops["encoder"] if network.config.turn_encoder == "transformer" else 0.0)
    once = sum(p.numel() for p in matrices_of(network.model.trunk))
    return Counted(
        parameters,
        layer,
        sum(p.numel() for p in Targets(network, whole).parameters()),
        working_bytes(config, network),
        flops["train"] + recomputed,
        averaged=parameters if config.optim.ema > 0 else 0,
        moments={"adamw": 2 * parameters, "muon": 2 * parameters - once, "sgd": 0}[config.optim.name],
    )


def _resolved(config: RunConfig) -> tuple[RunConfig, Tokenizer]:
    """The configuration and vocabulary that the run will have: with `model.init_from`, the sizes of the model named."""
    if config.model.init_from is None:
        return config, Tokenizer.load(config.data.vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        start = starting_model(replace(config, output=folder))
    return start.config, start.tokenizer


def empty_pack(config: RunConfig, turns: int) -> dict[str, torch.Tensor]:
    """A pack's shapes without content, on the meta device."""
    shape = PackShape(turns, turns // 64 + 1, config.data.max_turns)
    layout = PackLayout(shape, space_named(config.data.space))
    return layout.tensors(torch.empty(layout.nbytes, dtype=torch.uint8, device="meta"))


class LivePeak(TorchDispatchMode):
    """The most bytes that tensors made inside were holding at once. On the meta device nothing is computed or held."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def freed(_):
            self.now -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def working_bytes(config: RunConfig, network: TurnwiseForOfflineRL) -> float:
    """Bytes a turn, in fp32, that a step holds at its peak beside parameters and what is theirs: activations kept for
    the backward pass, and what passes by. The slope between packs of two sizes, so that gradients fall out."""
    objective = OfflineRL(network, config.objective).to("meta")
    objective.targets.to("meta")
    peaks = []
    for turns in (2048, 4096):
        objective.zero_grad(set_to_none=True)
        counts = torch.empty(2, dtype=torch.float64, device="meta")
        subset, filtering = torch.empty(2, dtype=torch.int64, device="meta"), torch.empty((), device="meta")
        pack = empty_pack(config, turns)
        with LivePeak() as live:
            objective(pack, counts, subset, filtering)[0].backward()
        peaks.append(live.peak)
    return (peaks[1] - peaks[0]) / 2048


def memory(counted: Counted, stage: str, world: int, turns: int, bf16: bool) -> dict[str, float]:
    """Bytes on each GPU by part, for one process with packs of `turns` turns.

    plain: fp32 parameters, gradients, the optimizer's moments (DDP: a second copy of the gradients in its buckets).
    ZeRO: parameters and gradients in the run's precision, fp32 masters and moments shared out; stage 2 shares the
    gradients, stage 3 and FSDP2 the parameters too, two layers of which are whole at a time.
    """
    p, wide = counted.parameters, 2 if bf16 else 4
    whole_layers, moments = 2 * counted.layer, 4 * counted.moments
    parts = {
        "plain": {
            "parameters": 4 * p,
            "gradients": 4 * p * (1 if world == 1 else 2),
            "optimizer": moments,
        },
        "zero1": {"parameters": wide * p, "gradients": wide * p, "optimizer": (4 * p + moments) / world},
        "zero2": {"parameters": wide * p, "gradients": wide * p / world, "optimizer": (4 * p + moments) / world},
        "zero3": {
            "parameters": wide * (p / world + whole_layers),
            "gradients": wide * (p / world + counted.layer),
            "optimizer": (4 * p + moments) / world,
        },
        "fsdp2": {
            "parameters": 4 * (p / world + whole_layers),
            "gradients": 4 * (p / world + counted.layer),
            "optimizer": moments / world,
        },
    }[stage]
    if stage.startswith("zero"):
        parts["buckets"] = wide * min(p, 500_000_000)
    working = counted.working_bytes * turns * (BF16_SHARE if bf16 else 1.0)
    return {**parts, "targets": 4 * counted.targets, "average": 4 * counted.averaged, "working": working}


def communicated(counted: Counted, stage: str, world: int, accumulate: int, bf16: bool) -> float:
    """Bytes that each GPU sends in one optimizer step, ring collectives: an all-reduce costs twice its tensor, a
    gather or scatter once, times (W − 1)/W. Stage 3 and FSDP2 gather for every micro-batch's forward and backward."""
    if world == 1:
        return 0.0
    p, ring, wide = counted.parameters, (world - 1) / world, 2 if bf16 else 4
    per_step = {
        "plain": 2 * 4 * p,
        "zero1": 2 * wide * p,
        "zero2": wide * (accumulate + 1) * p,
        "zero3": 3 * wide * p * accumulate,
        "fsdp2": (2 * 4 * accumulate + 4) * p,
    }
    return per_step[stage] * ring


def seconds_a_step(
    counted: Counted, stage: str, world: int, config: RunConfig, gpu: Gpu, assumed: Assumed
) -> tuple[float, float]:
    """Of the GPU: compute at the assumed share of the peak, and what of the communication does not hide behind it. Of
    the host, which launches it meanwhile: the longer of the two is the step's."""
    turns, bf16 = turns_a_pack(config) * config.batch.accumulate, config.precision != "fp32"
    compute = counted.flops * turns / (gpu.peak(bf16) * assumed.mfu)
    link = gpu.link if world <= GPUS_PER_NODE else min(gpu.link, assumed.network)
    sent = communicated(counted, stage, world, config.batch.accumulate, bf16)
    graphs = config.cuda_graphs and stage == "plain" and world == 1
    host = (HOST_GRAPHS_S if graphs else HOST_S[stage]) * config.batch.accumulate
    # Stages 1 and 2 send what lies in their one bucket when the backward pass is done (ds_configs).
    hidden = 0.0 if stage in ("zero1", "zero2") else assumed.overlap * compute
    return compute + max(0.0, sent / link - hidden), host


def turns_a_pack(config: RunConfig) -> int:
    """Turns that one process trains on in a micro-batch. Raises ValueError where no pack can be made so."""
    return pack_shape(config.batch, config.data.max_turns, TURNS_PER_BATTLE).turns


def battles_of_the_run(config: RunConfig, world: int, battles: float) -> float:
    """Battles trained on, each as often as it comes: by `epochs`, or by `max_steps` where that ends the run before.

    Raises ConfigError where neither is given.
    """
    a_step = turns_a_pack(config) * config.batch.accumulate * world / TURNS_PER_BATTLE
    ends = [
        number * each for number, each in ((config.epochs, battles), (config.max_steps, a_step)) if number is not None
    ]
    if not ends:
        raise ConfigError("epochs and max_steps are both null: give one, so that the run ends")
    return min(ends)


def stages_of(config: RunConfig, world: int) -> list[str]:
    """The stages that the run can be launched at."""
    if config.optim.name == "muon":  # it needs whole matrices
        return ["plain"]
    return [stage for stage in STAGES if stage != "fsdp2" or world > 1]


def recorded_share(gpu_name: str, gpu: Gpu, flops: float) -> Assumed:
    """The share of bf16's peak of the nearest record (in FLOPs a turn) taken on that GPU; an assumption without one."""
    if not RECORD.exists():
        return Assumed()
    key = gpu_name.split("-")[0].upper()
    found = []
    for record in json.loads(RECORD.read_text(encoding="utf-8")).values():
        device = str(record["hardware"]["device"]).replace(" ", "")
        if key in device and "default" in record:  # not one of the prior recipe alone
            own = record["default"]["flops_per_turn"]["train"]
            share = record["default"]["loader_included"]["turns_per_s"] * own / gpu.bf16
            found.append((abs(own - flops), share, record["name"]))
    if not found:
        return Assumed()
    _, share, name = min(found)
    return Assumed(mfu=share, mfu_source=f"record {name!r}")


def report(
    config: RunConfig, gpus: list[int], gpu_name: str, battles: float, dollars: float, network: float
) -> tuple[str, bool]:
    """The plan in words, and whether any stage fits on every number of GPUs."""
    gpu, counted, bf16 = GPUS[gpu_name], count(config), config.precision != "fp32"
    known = recorded_share(gpu_name, gpu, counted.flops) if bf16 else Assumed(mfu_source="assumed: records are of bf16")
    assumed = replace(known, network=network)
    ends = {"epochs": config.epochs, "steps": config.max_steps}
    length = " or ".join(f"{number:g} {name}" for name, number in ends.items() if number is not None)
    lines = [
        f"{counted.parameters / 1e6:.1f}M parameters, {counted.flops / 1e9:.3f} GFLOP a turn trained on, "
        f"{counted.working_bytes / 2**20:.2f} MiB of working memory a turn in fp32",
        f"{config.batch.battles} battles × {config.batch.accumulate} micro-batches a step ({TURNS_PER_BATTLE:.0f} "
        f"turns a battle), {'on each GPU' if config.batch_scaling == 'multiply' else 'shared out among the GPUs'} "
        f"(batch_scaling: {config.batch_scaling})",
        f"assumed: {100 * assumed.mfu:.0f}% of {gpu.peak(bf16) / 1e12:.0f} TFLOP/s ({assumed.mfu_source}); "
        f"{gpu.link / 1e9:.0f} GB/s inside a machine of {GPUS_PER_NODE}, {assumed.network / 1e9:.0f} GB/s out "
        f"of one; {100 * assumed.overlap:.0f}% of the compute hides communication; ${dollars:.2f} a GPU-hour",
        f"{battles:,.0f} battles, {length}{', what comes first' if None not in ends.values() else ''}",
        "",
        f"{'GPUs':>5} {'stage':<6} {'GiB a GPU':>10}  {'of which optimizer':>18} {'working':>12} "
        f"{'sent a step':>12} {'battles/s':>10} {'scaling':>8} {'time':>8} {'cost':>9}",
    ]
    fits_everywhere = True
    alone = {stage: max(seconds_a_step(counted, stage, 1, config, gpu, assumed)) for stage in STAGES}
    turns_alone = turns_a_pack(config) * config.batch.accumulate
    for world in gpus:
        fits_here = False
        shared = scale_to_world(config, world)
        for stage in stages_of(config, world):
            parts = memory(counted, stage, world, turns_a_pack(shared), bf16)
            needed = sum(parts.values()) / GIB + OVERHEAD_GIB
            fits = needed <= gpu.memory
            fits_here |= fits
            of_gpu, of_host = seconds_a_step(counted, stage, world, shared, gpu, assumed)
            turns = turns_a_pack(shared) * shared.batch.accumulate  # of each GPU
            speed = turns * world / max(of_gpu, of_host) / TURNS_PER_BATTLE
            scaling = turns / turns_alone * alone[stage] / max(of_gpu, of_host)
            seconds = battles_of_the_run(shared, world, battles) / speed
            sent = communicated(counted, stage, world, shared.batch.accumulate, bf16) / GIB
            lines.append(
                f"{world:>5} {stage:<6} {needed:>10.1f}  {parts['optimizer'] / GIB:>18.1f} "
                f"{parts['working'] / GIB:>12.1f} {sent:>8.2f} GiB {speed:>10,.0f} {scaling:>7.0%} "
                f"{duration(seconds):>8} {dollars * world * seconds / 3600:>8,.2f}$"
                + ("" if of_gpu > of_host else f"  waits for the host: {of_gpu / of_host:.0%} busy")
                + ("" if fits else f"  does not fit: {gpu_name} has {gpu.memory:.0f} GiB")
            )
        if not fits_here:
            lines.append(f"{world:>5}: no stage fits: take more GPUs, gradient_checkpointing, or smaller batch.battles")
        fits_everywhere &= fits_here
    if any("waits for the host" in line for line in lines):
        more = [f"larger batch.battles{' and batch.accumulate=1' if config.batch.accumulate > 1 else ''}"]
        more += ["batch_scaling=multiply"] * (config.batch_scaling == "keep" and max(gpus) > 1)
        lines += ["", f"A GPU that waits for the host has too few battles a pack: {', or '.join(more)}"]
    return "\n".join(lines), fits_everywhere


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan of a run. Exit status 1 where it cannot fit."""
    steady_output()
    parser = argparse.ArgumentParser(prog="python -m trainer.plan", description=first_line(__doc__))
    parser.add_argument("--config", help="YAML of the run")
    parser.add_argument("--gpus", default="1,8", help="numbers of GPUs: 1,8,64")
    parser.add_argument("--gpu", choices=sorted(GPUS), default="h100-80gb")
    parser.add_argument("--battles", type=float, default=4e6, help="battles of the data set")
    parser.add_argument("--dollars", type=float, default=2.50, help="price of a GPU-hour")
    parser.add_argument("--network", type=float, default=3200, help="Gbit/s out of one machine of 8 GPUs")
    parser.add_argument("settings", nargs="*", metavar="a.b=c")
    arguments = parser.parse_intermixed_args(argv)  # settings and options in any order
    try:
        config = load_config(arguments.config, arguments.settings)
        gpus = [int(number) if number.strip().isdecimal() else 0 for number in arguments.gpus.split(",")]
        if not all(gpus):
            raise ConfigError(f"--gpus {arguments.gpus}: give numbers of GPUs: 1,8,64")
        for name in ("battles", "dollars", "network"):
            if not positive(getattr(arguments, name)):
                raise ConfigError(f"--{name} {getattr(arguments, name):g}: give a number above 0")
        text, fits = report(
            config, gpus, arguments.gpu, arguments.battles, arguments.dollars, arguments.network / 8 * 1e9
        )
    except (ConfigError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say(text)
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())
