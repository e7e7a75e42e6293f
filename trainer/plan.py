"""Memory, time and money of a run, told before it is started.

    python -m trainer.plan --config launch/runs/h100_1gpu.yaml --gpus 1,8 --gpu h100-80gb [--battles 4000000] [a.b=c …]

Counted: parameters, FLOPs and the memory that a step works in (from the modules, on the meta device), bytes that cross
the links a step. Assumed, and printed: the share of the chip's peak that is reached, where no record of
`launch/records/bench_train.json` was taken on that GPU; the links' speeds; the price.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.terminal import first_line, say, steady_output
from trainer.config import RunConfig, load_config, scale_to_world
from trainer.counting import count
from trainer.errors import ConfigError
from trainer.limits import positive
from trainer.step_costs import (
    GIB,
    GPUS,
    GPUS_PER_NODE,
    OVERHEAD_GIB,
    STAGES,
    TURNS_PER_BATTLE,
    Assumed,
    Gpu,
    communicated,
    memory,
    seconds_a_step,
    turns_a_pack,
)
from trainer.wording import duration

RECORD = Path(__file__).parents[1] / "launch" / "records" / "bench_train.json"


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
