"""The largest pack that fits: `python -m launch.find_pack --config launch/runs/h100_1gpu.yaml [a.b=c …]`.

Tries numbers of battles a pack, each by two real optimizer steps in a process of its own: doubling until one does not
fit, then halving the gap. On CUDA a try fails by running out of memory, or over `--memory-gib` of what torch reserved;
on the CPU, by a resident set over `--memory-gib`. Prints the override to use. The global batch and the optimizer's
noise change with it: keep battles × accumulate where the run is to stay the same.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from data.terminal import first_line, steady_output
from launch.machine import peak_rss
from trainer.config import load_config
from trainer.errors import ConfigError
from trainer.faults import out_of_memory
from trainer.loop import Run

ROOT = Path(__file__).parents[1]
GIB = 2**30
STEPS = 2  # the optimizer's moments are there from the second on


def largest(fits: Callable[[int], bool], start: int, most: int, grain: float = 1 / 16) -> int:
    """The largest number from `start` to `most` found to fit, to within `grain` of itself; 0 where none does.

    Doubles from `start`, then bisects. `fits` must be monotone.
    """
    good, bad, number = 0, None, min(start, most)
    while bad is None:
        if fits(number):
            good = number
            if number == most:
                return good
            number = min(2 * number, most)
        else:
            bad = number
    while bad - good > max(1, int(grain * good)):
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good


def try_pack(settings: list[str], path: str | None, battles: int) -> dict:
    """Train two steps on packs of `battles` battles, in this process: rows of the pack, and the peak in bytes (None:
    out of memory)."""
    accumulate = min(2, load_config(path, settings).batch.accumulate)
    with tempfile.TemporaryDirectory() as folder:
        own = [
            f"batch.battles={battles}", "batch.turns=null", f"batch.accumulate={accumulate}", f"output={folder}",
            "resume=never", "log.progress=false", "epochs=null", f"max_steps={STEPS}", "hub.push=false",
            "processes=null",
        ]  # fmt: skip
        run = Run(load_config(path, [*settings, *own]))
        run.course.open(0)
        run.module.train()
        turns = run.course.shape.turns
        try:
            for step in range(STEPS):
                run.step(step, [run._to_device(pack) for pack in run.course.micro(step)])
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            gc.collect()
            return {"battles": battles, "turns": turns, "peak": None}
        cuda = run.accelerator.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize()
        run.watchdog.stop()
        peak = torch.cuda.max_memory_reserved() if cuda else peak_rss()
    return {"battles": battles, "turns": turns, "peak": peak}


def main(argv: Sequence[str] | None = None) -> int:
    """Search, and print the setting. Exit status 1 where nothing fits or a try fails otherwise."""
    steady_output()
    parser = argparse.ArgumentParser(prog="python -m launch.find_pack", description=first_line(__doc__))
    parser.add_argument("--config", help="YAML of the run")
    parser.add_argument("--memory-gib", type=float, help="budget; needed on the CPU (default on CUDA: all of it)")
    parser.add_argument("--start", type=int, default=8, help="battles of the first try")
    parser.add_argument("--most", type=int, default=4096, help="battles of the largest try")
    parser.add_argument("--child", nargs=2, metavar=("BATTLES", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("settings", nargs="*", metavar="a.b=c")
    options = parser.parse_intermixed_args(argv)
    if options.child:
        battles, out = options.child
        Path(out).write_text(json.dumps(try_pack(options.settings, options.config, int(battles))))
        return 0
    if options.memory_gib is None and not torch.cuda.is_available():
        parser.error("--memory-gib: on the CPU say how much memory there is to be used")
    tries: dict[int, dict] = {}

    def fits(battles: int) -> bool:
        found = tries[battles] = in_process(options, battles)
        within = found["peak"] is not None and found["peak"] <= (options.memory_gib or float("inf")) * GIB
        peak = "out of memory" if found["peak"] is None else f"{found['peak'] / GIB:.2f} GiB"
        print(f"{battles} battles, {found['turns']} turns: {peak}{'' if within else ': too much'}", flush=True)
        return within

    try:
        load_config(options.config, options.settings)
        best = largest(fits, options.start, options.most)
    except (ConfigError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if best == 0:
        print(
            f"nothing fits: not even {min(tries)} battles; gradient_checkpointing, or a smaller model", file=sys.stderr
        )
        return 1
    print(f"batch.battles={best}")
    return 0


def in_process(options: argparse.Namespace, battles: int) -> dict:
    """`try_pack` in a new process, so that each starts with an empty memory. Raises RuntimeError where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "try.json"
        config = ["--config", options.config] if options.config else []
        command = [sys.executable, "-m", "launch.find_pack", *config, "--child", str(battles), str(out)]
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": paths}  # the folder stays the caller's, whose paths may hang on it
        done = subprocess.run([*command, *options.settings], env=environment, capture_output=True, text=True)
        if done.returncode < 0 and not out.exists():
            # Killed for memory, as Linux does it.
            return {"battles": battles, "turns": 0, "peak": None}
        if done.returncode or not out.exists():
            raise RuntimeError(f"{battles} battles: the try failed:\n{done.stderr[-2000:]}")
        return json.loads(out.read_text())


if __name__ == "__main__":
    sys.exit(main())
