"""Measures training: `python -m launch.bench_train --mode both --preset tiny --data data/sample`.

Modes, each in a process of its own (so that memory and compilation are its own), on the same data, model size and
number of battles:

- `default`: the repository's loader, objective and step, put together by `trainer.loop.Run` as in a run, one pack
  a step.
- `prior`: the prior attempt's recipe, pinned in `launch/prior_recipe.py`, two micro-batches a step.

Three measurements follow one another: with the loader; on packs already on the device; and time by part. Medians over
steps after a warm-up, and means of the waits for data, for workers bring their packs several at a time. Battles are
windows (the unit of every figure here), turns are real ones: padding counts for nothing, in MFU neither. Writes
`launch/records/bench_train.{json,md}`, one entry per preset and device, and per mode where one is measured alone.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, cycle, islice
from pathlib import Path

import torch

from data.loader import make_loader
from data.packing import PackShape
from launch.bench_table import MODES, PARTS, ratios, table
from launch.machine import cpu_name, cpu_seconds, peak_rss
from launch.part_clock import PartClock, TimedStep, kernel_seconds
from launch.prior_recipe import attend_by_rows, pad_to_longest, prior_recipe
from launch.record import RECORDS, commit
from model.attention import is_varlen
from model.modeling_turnwise import PRESETS
from trainer.config import load_config
from trainer.flops import flops_per_turn, peak_flops
from trainer.loop import Run
from trainer.world import compiles

ROOT = Path(__file__).parents[1]
LEAST_S = 3.0  # measured on a GPU, which takes ten steps in a fifth of a second, before it is warm


class Bench:
    """One mode's measurements, in this process."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.prior = options, options.mode == "prior"
        # Of its own: in the default folder a real run may be training, or have left its checkpoints.
        self.folder = tempfile.TemporaryDirectory()
        self.run = Run(load_config(None, [*settings(options), f"output={self.folder.name}"]))
        self.device = self.run.accelerator.device
        network = self.run.objective.network
        self.layout = "packed"
        if self.prior:
            self.layout = f"rows × length, {network.attention}"
            if not is_varlen(network.attention):
                self.layout = "rows × length, dense SDPA"
                attend_by_rows(network)
        self.compiled = compiles(self.run.config, self.run.accelerator)
        self.clock = PartClock(self.device)
        self.step = TimedStep(self.run.step, self.clock)
        self.done = 0

    def packs(self) -> Iterator[dict[str, torch.Tensor]]:
        """The loader's packs, from the first on, more than enough of them."""
        config, shape = self.run.config, None
        if self.prior:
            rows = config.batch.battles * config.data.max_turns + 1
            shape = PackShape(rows, 2 * config.batch.battles + 2, config.data.max_turns)
        loader = make_loader(self.run.dataset, config.batch, seed=config.seed, max_steps=10_000, shape=shape)
        return map(pad_to_longest, loader) if self.prior else iter(loader)

    def measure(self) -> dict:
        """All figures of this mode."""
        options, accumulate = self.options, self.run.config.batch.accumulate
        packs = self.packs()
        self.run.module.train()
        self.warmup_s = time.perf_counter()
        self.train(packs, options.warmup, True)
        self.warmup_s = time.perf_counter() - self.warmup_s
        # What the workers had ready while the compiler worked is no speed of theirs: the clock starts behind it.
        ready = self.run.config.data.workers * self.run.config.data.prefetch
        packs = islice(packs, ready, None)
        packs = chain(list(islice(packs, accumulate)), packs)
        least = LEAST_S if self.device.type == "cuda" else 0.0
        included = self.train(packs, options.steps, True, least)
        # Packs already on the device: what the model alone takes.
        held = list(islice(packs, accumulate * min(options.steps, 8)))
        kept = [self.run._to_device(pack) for pack in held]
        excluded = self.train(cycle(kept), options.steps, False, least) | a_step(map(contents, held), accumulate)
        busy = self.profile(cycle(kept)) if self.device.type == "cuda" else None
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else peak_rss()
        detail = None
        if self.step.engine is None:
            self.step.watch_parts()
            self.train(cycle(kept), 1, False)
            detail = self.train(cycle(kept), max(2, options.steps // 2), False)["parts_s"]
            detail["heads and loss"] += detail.pop("forward")
        return self.figures(included, excluded, detail, busy, peak, kept[0])

    def train(self, packs: Iterator[dict], steps: int, from_loader: bool, least: float = 0.0) -> dict:
        """Train `steps` optimizer steps, and on where they take less than `least` seconds; seconds a step, in all and
        by part."""
        seen, first, began = [], self.done, time.perf_counter()
        spent = cpu_seconds if from_loader else time.process_time  # its workers' share too, where they work
        cpu = spent()
        self.clock.take()
        self.clock.marks.clear()
        self.clock.mark("")
        while self.done - first < steps or time.perf_counter() - began < least:
            micro = list(islice(packs, self.run.config.batch.accumulate))
            if from_loader:
                seen += map(contents, micro)
                micro = [self.run._to_device(pack) for pack in micro]
            self.clock.mark("data wait")
            metrics = self.step(self.done, micro, detailed=self.done % self.run.config.log.every == 0)
            self.clock.mark("step ends")
            self.done += 1
        parts = self.clock.take()
        self.loss = float(metrics["loss/total"])
        waits = [step.get("data wait", 0.0) for step in parts]
        mean_wait = statistics.fmean(waits)
        taken = [sum(step.values()) - wait for step, wait in zip(parts, waits, strict=True)]
        names = [name for name in PARTS if any(name in step for step in parts)]
        return {
            "seconds": statistics.median(taken) + mean_wait,
            "slowest_s": max(sum(step.values()) for step in parts),
            "cpu_s": (spent() - cpu) / len(parts),
            "parts_s": {name: statistics.median(step.get(name, 0.0) for step in parts) for name in names}
            | {"data wait": mean_wait},
            **(a_step(seen, self.run.config.batch.accumulate) if from_loader else {}),
        }

    def profile(self, packs: Iterator[dict]) -> float | None:
        """Share of the time in which the GPU is busy, over three steps; None where that is not to be seen. The
        operators go to the record's folder."""
        steps = 3
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            started = time.perf_counter()
            for _ in range(steps):
                self.step(self.done, list(islice(packs, self.run.config.batch.accumulate)), detailed=False)
                self.done += 1
            torch.cuda.synchronize()
            seconds = time.perf_counter() - started
        self.clock.take()
        spent = kernel_seconds(profiler)
        self.options.records.mkdir(parents=True, exist_ok=True)
        table = profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=40)
        name = f"bench_train_profile_{self.options.preset}_{self.options.mode}.txt"
        (self.options.records / name).write_text(table, encoding="utf-8")
        return None if spent is None else spent / seconds

    def figures(self, included: dict, excluded: dict, detail: dict | None, busy, peak: int, pack: dict) -> dict:
        """The record of this mode."""
        run, network = self.run, self.run.objective.network
        flops = flops_per_turn(network.config, pack, run.config.objective.target == "network")
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else cpu_name()
        known = peak_flops(name)
        if known and run.accelerator.mixed_precision != "bf16":
            known = None  # the peaks are of bf16
        rates = {}
        for label, figures in (("loader_included", included), ("loader_excluded", excluded)):
            rate = figures["turns"] / figures["seconds"]
            rates[label] = {
                **figures,
                "battles_per_s": figures["battles"] / figures["seconds"],
                "turns_per_s": rate,
                "padding_share": 1 - figures["turns"] / figures["rows"],
                "gflops_per_s": flops["train"] * rate / 1e9,
                "mfu": flops["train"] * rate / known if known else None,
            }
        return {
            **rates,
            "parts_eager_s": detail,
            "gpu_busy_share": busy,
            "peak_memory_gb": peak / 1e9,
            "warmup_s": self.warmup_s,
            "loss_at_the_end": self.loss,
            "flops_per_turn": flops,
            "parameters": sum(p.numel() for p in network.parameters()),
            "settings": settings(self.options),
            "layout": self.layout,
            "attention": network.attention,
            "compiled": self.compiled,
            "engine": "plain PyTorch" if self.step.engine is None else "DeepSpeed",
            "precision": run.accelerator.mixed_precision,
            "optimizer_steps": self.done,
            "device": name,
        }


def contents(pack: dict[str, torch.Tensor]) -> dict[str, int]:
    """Battles (windows), real turns and rows of one pack."""
    return {
        "battles": int((pack["windows"][:, 0] >= 0).sum()),
        "turns": int(pack["valid"].sum()),
        "rows": pack["valid"].shape[0],
    }


def a_step(packs: Iterable[dict[str, int]], accumulate: int) -> dict[str, float]:
    """Means of one optimizer step, of what each pack holds."""
    packs = list(packs)
    return {name: accumulate * statistics.fmean(pack[name] for pack in packs) for name in packs[0]}


def settings(options: argparse.Namespace) -> list[str]:
    """What the mode sets of a run's configuration."""
    common = [f"model.preset={options.preset}", f"data.path={options.data}", f"data.workers={options.workers}",
              "log.progress=false", "epochs=null", "max_steps=100000"]  # fmt: skip
    battles = options.battles
    of_mode = (
        [*prior_recipe(), f"batch.battles={battles // 2}", "batch.accumulate=2"]
        if options.mode == "prior"
        else [f"batch.battles={battles}", "batch.accumulate=1"]
    )
    return [*common, *of_mode, *options.set]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the modes asked for, each in a process of its own; write the record."""
    argv = sys.argv[1:] if argv is None else list(argv)
    options = parse(argv)
    if options.child:
        bench = Bench(options)
        Path(options.child).write_text(json.dumps(bench.measure()), encoding="utf-8")
        bench.folder.cleanup()
        sys.stdout.flush()
        os._exit(0)  # the compiler's processes have been seen to hold an ending one for five minutes
    started, results = time.time(), {}
    for mode in MODES if options.mode == "both" else (options.mode,):
        print(f"{mode} …", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "result.json"
            command = [sys.executable, "-m", "launch.bench_train", *argv, "--mode", mode, "--child", str(out)]
            if subprocess.run(command, cwd=ROOT).returncode:
                print(f"{mode}: failed, see above; of it nothing is recorded", file=sys.stderr)
                return 1
            results[mode] = json.loads(out.read_text(encoding="utf-8"))
        entry = entry_of(results, options, argv, started)
        write(entry, options.records)  # now: the other mode may fail, or run out of somebody's time
    print(table(entry))
    return 0


def entry_of(results: dict[str, dict], options: argparse.Namespace, argv: Sequence[str], started: float) -> dict:
    """The record of the modes measured so far."""
    first = next(iter(results.values()))
    both = len(results) == len(MODES)
    # An entry of its own: one mode is not to take the place of both and their ratio.
    alone = [] if both else [f"{mode} alone" for mode in results]
    entry = {
        "name": ", ".join(["bench_train", options.preset, first["device"], *alone, *options.set]),
        "command": "python -m launch.bench_train " + " ".join(argv),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime(started)) + " UTC",
        "hardware": {"device": first["device"], "cores": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS"),
                     "load_average": [round(x, 2) for x in os.getloadavg()]},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "waits": "mean",
        **results,
    }  # fmt: skip
    return entry | ({"default_over_prior": ratios(results)} if both else {})


def write(entry: dict, folder: Path) -> None:
    """Put the entry into the record, in the place of one of its name, and of the same command's first mode alone."""
    record = folder / "bench_train.json"
    folder.mkdir(parents=True, exist_ok=True)
    entries = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    mine = (entry["command"], entry["date"])
    entries = {name: old for name, old in entries.items() if (old["command"], old["date"]) != mine}
    entries[entry["name"]] = entry
    record.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    text = "# Training, measured\n\n" + "\n".join(table(entry) for entry in entries.values())
    record.with_suffix(".md").write_text(text, encoding="utf-8")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m launch.bench_train", description=__doc__)
    parser.add_argument("--mode", choices=[*MODES, "both"], default="both")
    parser.add_argument("--preset", choices=list(PRESETS), default="tiny")
    parser.add_argument("--data", type=Path, default=Path("data/sample"), help="battle files, or a token cache")
    parser.add_argument(
        "--battles", type=int, help="a step, in both modes; an even number (default: 128 on CUDA, 16 on CPU)"
    )
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps measured")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--workers", type=int, help="loader processes (default: 12 on CUDA, 1 on CPU)")
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of the record")
    parser.add_argument("--set", nargs="*", default=[], metavar="a.b=c", help="further settings of the run, both modes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    cuda = torch.cuda.is_available()
    options.battles = options.battles or (128 if cuda else 16)
    options.workers = (12 if cuda else 1) if options.workers is None else options.workers
    if not (ROOT / options.data).exists():
        parser.error(f"--data {options.data}: there is nothing; give a folder of battle files or a token cache")
    if options.battles < 2 or options.battles % 2:
        parser.error(f"--battles {options.battles}: give an even number, two micro-batches of the prior's")
    if options.steps < 1 or options.warmup < 1:
        parser.error("--steps and --warmup: give 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
