"""Measures training: `python -m launch.bench_train --mode both --preset tiny --data data/sample`.

Modes, each in a process of its own (so that memory and compilation are its own), on the same data, model size and
number of battles:

- `default`: the repository's loader, objective and step, put together by `trainer.loop.Run` as in a run.
- `prior`: the prior attempt's recipe, pinned in `prior_recipe` and laid out by `pad_to_longest`.

Three measurements follow one another: with the loader; on packs already on the device; and time by part. Medians over
steps after a warm-up. Battles are windows (the unit of every figure here), turns are real ones: padding counts for
nothing, in MFU neither. Writes `launch/records/bench_train.{json,md}`, one entry per preset and device.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import torch

from data.loader import make_loader
from data.sampler import PackShape
from model.modeling_turnwise import PRESETS, TurnwiseForOfflineRL
from trainer.config import load_config
from trainer.flops import flops_per_turn, peak_flops
from trainer.loop import Run
from trainer.step import TrainStep

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "launch" / "records"
MODES = ("prior", "default")
KERNELS = ("flash_attention_2", "varlen_attn")
PARTS = ("data wait", "turn encoder", "trunk", "heads and loss", "forward", "backward", "optimizer")


def prior_recipe() -> list[str]:
    """The prior attempt's settings, as far as its README tells them; everything not named is as in `default`.

    - 64 battles a micro-batch (`--battles`), two micro-batches a step, one drawn window of each file, all padded to
      the longest of their micro-batch, so attention is over rows × length: by flash-attn's or torch's variable-length
      kernel with rows of equal length where the GPU has one, otherwise by SDPA over [rows, length] with a causal mask.
    - The Metamon paper's turn encoder; heads of 96 bins for 13 actions, 4 discounts and 4 critics.
    - bf16 autocast on CUDA, nothing compiled.

    Kinder to it than it was: files are read and encoded by this repository's loader, and the objective is this
    repository's (value bins of the one action taken have a gradient). So what is compared is layout, encoder, head
    size and compilation, and not its reading of files.
    """
    return ["compile=false", "batch.plan=battles", "batch.accumulate=2", "model.turn_encoder=transformer",
            "model.value_bins=96", "model.critics=4", "precision=auto"]  # fmt: skip


def pad_to_longest(pack: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A pack whose every window is followed by padding up to the longest: row-major [rows × length].

    `pack` must end in a padding row, which is what padding is copied from. Segments are of equal length.
    """
    count = int((pack["windows"][:, 0] >= 0).sum())
    starts = pack["cu_seqlens"][:count].long()
    lengths = pack["cu_seqlens"][1 : count + 1].long() - starts
    longest = int(lengths.max())
    if pack["valid"][-1]:
        raise ValueError("the pack does not end in a padding row: give its shape one row more than its windows need")
    place = torch.arange(longest)
    index = torch.where(place < lengths[:, None], starts[:, None] + place, pack["valid"].shape[0] - 1).flatten()
    by_turn = {key: value[index] for key, value in pack.items() if key not in ("cu_seqlens", "windows")}
    return {
        **by_turn,
        "position": place.int().repeat(count),
        "segment": torch.arange(count, dtype=torch.int32).repeat_interleave(longest),
        "cu_seqlens": torch.arange(count + 1, dtype=torch.int32) * longest,
        "windows": pack["windows"][:count],
    }


class RowsByLength:
    """Stands where a key-value cache would in the trunk's layers: keys and values are those of the row itself."""

    def __init__(self, length: int, device: torch.device):
        self.mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()

    def append(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """k, v [B, T, H, d] → [B, H, T, d]."""
        return k.transpose(1, 2), v.transpose(1, 2)


def attend_by_rows(network: TurnwiseForOfflineRL) -> None:
    """Make `network.features` attend over [rows, length] of a `pad_to_longest` pack, by dense SDPA."""
    model = network.model

    def features(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        keys = ("words", "numbers", "prev_action", "prev_action_known", "prev_reward")
        turn, entities = model.turn_encoder(*(batch[key] for key in keys))
        position = batch["position"].view(batch["cu_seqlens"].shape[0] - 1, -1)
        rows = RowsByLength(position.shape[1], turn.device)
        hidden = model.trunk(turn.view(*position.shape, -1), position, cache=rows)
        return hidden.flatten(0, 1), entities

    network.features = features


class PartClock:
    """Charges time to parts: `mark(name)` charges what passed since the mark before. On CUDA in the device's own time
    (events on its stream), so a part that waits for the host shows and one that runs behind it does not."""

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.marks: list[tuple[str, object]] = []
        self.mark("")

    def mark(self, name: str) -> None:
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        else:
            event = time.perf_counter()
        self.marks.append((name, event))

    def take(self) -> list[dict[str, float]]:
        """Seconds by part of each step since the last call; a step ends at a mark named "step ends"."""
        if self.cuda:
            torch.cuda.synchronize()
        steps, current = [], defaultdict(float)
        for (_, before), (name, at) in zip(self.marks, self.marks[1:], strict=False):
            current[name] += before.elapsed_time(at) / 1e3 if self.cuda else at - before
            if name == "step ends":
                current["optimizer"] += current.pop(name)
                steps.append(dict(current))
                current = defaultdict(float)
        self.marks = self.marks[-1:]
        return steps


class TimedStep(TrainStep):
    """The trainer's step with a clock: forward, backward and optimizer are told apart, nothing else is changed."""

    def __init__(self, step: TrainStep, clock: PartClock):
        super().__init__(
            step.accelerator,
            step.module,
            step.objective,
            step.optimizer,
            step.config,
            step.seed,
            step.total_steps,
            average=step.average,
        )
        self.clock, self.call, self.since = clock, step.module, "optimizer"
        self.module = self._forward

    def _forward(self, *inputs):
        self.clock.mark(self.since)
        out = self.call(*inputs)
        self.clock.mark("forward")
        self.since = "backward"
        return out

    def _update(self, detailed: bool):
        self.clock.mark("backward")
        self.since = "optimizer"
        return super()._update(detailed)

    def watch_parts(self, module: torch.nn.Module) -> None:
        """Run eagerly from here on, with hooks that tell turn encoder, trunk, and the rest of the forward apart."""
        self.call = module.forward  # past the compiled call: hooks would break its graph
        model, clock = self.objective.network.model, self.clock
        model.turn_encoder.register_forward_pre_hook(lambda *_: clock.mark("heads and loss"))
        model.turn_encoder.register_forward_hook(lambda *_: clock.mark("turn encoder"))
        model.trunk.register_forward_pre_hook(lambda *_: clock.mark("turn encoder"))
        model.trunk.register_forward_hook(lambda *_: clock.mark("trunk"))


class Bench:
    """One mode's measurements, in this process."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.prior = options, options.mode == "prior"
        self.run = Run(load_config(None, settings(options)))
        self.device = self.run.accelerator.device
        network = self.run.objective.network
        self.layout = "packed"
        if self.prior:
            self.layout = f"rows × length, {network.attention}"
            if network.attention not in KERNELS:
                self.layout = "rows × length, dense SDPA"
                attend_by_rows(network)
        asked = self.run.config.compile
        self.compiled = self.device.type == "cuda" if asked is None else asked
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
        included = self.train(packs, options.steps, True)
        # Packs already on the device: what the model alone takes.
        held = list(islice(packs, accumulate * min(options.steps, 8)))
        kept = [self.run._to_device(pack) for pack in held]
        excluded = self.train(cycle(kept), options.steps, False) | contents(held, accumulate)
        busy = self.profile(cycle(kept)) if self.device.type == "cuda" else None
        peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else peak_rss()
        detail = None
        if not self.step.deepspeed:
            self.step.watch_parts(self.run.module)
            self.train(cycle(kept), 1, False)
            detail = self.train(cycle(kept), max(2, options.steps // 2), False)["parts_s"]
            detail["heads and loss"] += detail.pop("forward")
        return self.figures(included, excluded, detail, busy, peak, kept[0])

    def train(self, packs: Iterator[dict], steps: int, from_loader: bool) -> dict:
        """Train `steps` optimizer steps; medians of seconds a step, in all and by part."""
        seen = []
        cpu = time.process_time()
        self.clock.take()
        self.clock.marks.clear()
        self.clock.mark("")
        for _ in range(steps):
            micro = list(islice(packs, self.run.config.batch.accumulate))
            if from_loader:
                seen += micro
                micro = [self.run._to_device(pack) for pack in micro]
            self.clock.mark("data wait")
            metrics = self.step(self.done, micro)
            self.clock.mark("step ends")
            self.done += 1
        parts = self.clock.take()
        self.loss = float(metrics["loss/total"])
        seconds = statistics.median(sum(step.values()) for step in parts)
        names = [name for name in PARTS if any(name in step for step in parts)]
        return {
            "seconds": seconds,
            "slowest_s": max(sum(step.values()) for step in parts),
            "cpu_s": (time.process_time() - cpu) / steps,
            "parts_s": {name: statistics.median(step.get(name, 0.0) for step in parts) for name in names},
            **(contents(seen, self.run.config.batch.accumulate) if from_loader else {}),
        }

    def profile(self, packs: Iterator[dict]) -> float:
        """Share of the time in which the GPU is busy, over three steps; the operators go to the record's folder."""
        steps = 3
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            started = time.perf_counter()
            for _ in range(steps):
                self.step(self.done, list(islice(packs, self.run.config.batch.accumulate)))
                self.done += 1
            torch.cuda.synchronize()
            seconds = time.perf_counter() - started
        self.clock.take()
        averages = profiler.key_averages()
        self.options.records.mkdir(parents=True, exist_ok=True)
        table = averages.table(sort_by="self_cuda_time_total", row_limit=40)
        name = f"bench_train_profile_{self.options.preset}_{self.options.mode}.txt"
        (self.options.records / name).write_text(table, encoding="utf-8")
        return sum(event.self_device_time_total for event in averages) / 1e6 / seconds

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
            "engine": "DeepSpeed" if self.step.deepspeed else "plain PyTorch",
            "precision": run.accelerator.mixed_precision,
            "optimizer_steps": self.done,
            "device": name,
        }


def contents(packs: list[dict], accumulate: int) -> dict[str, float]:
    """Means of one optimizer step: battles (windows), real turns, rows."""
    steps = len(packs) / accumulate
    return {
        "battles": sum(int((pack["windows"][:, 0] >= 0).sum()) for pack in packs) / steps,
        "turns": sum(int(pack["valid"].sum()) for pack in packs) / steps,
        "rows": sum(pack["valid"].shape[0] for pack in packs) / steps,
    }


def settings(options: argparse.Namespace) -> list[str]:
    """What the mode sets of a run's configuration."""
    common = [f"model.preset={options.preset}", f"data.path={options.data}", f"data.workers={options.workers}",
              f"batch.battles={options.battles}", "batch.accumulate=2", "log.progress=false", "epochs=null",
              "max_steps=100000"]  # fmt: skip
    return [*common, *(prior_recipe() if options.mode == "prior" else []), *options.set]


def peak_rss() -> int:
    """Largest resident set of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cpu_name() -> str:
    """The processor's model, from /proc."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit() -> str:
    """The commit measured, with a + where files of the measured rooms differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return "not a git checkout"
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "model", "trainer", "data"]).returncode
    return head.stdout.strip() + ("+" if changed else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the modes asked for, each in a process of its own; write the record."""
    argv = sys.argv[1:] if argv is None else list(argv)
    options = parse(argv)
    if options.child:
        Path(options.child).write_text(json.dumps(Bench(options).measure()), encoding="utf-8")
        return 0
    started, results = time.time(), {}
    for mode in MODES if options.mode == "both" else (options.mode,):
        print(f"{mode} …", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "result.json"
            command = [sys.executable, "-m", "launch.bench_train", *argv, "--mode", mode, "--child", str(out)]
            if subprocess.run(command, cwd=ROOT).returncode:
                print(f"{mode}: failed, see above; nothing is recorded", file=sys.stderr)
                return 1
            results[mode] = json.loads(out.read_text(encoding="utf-8"))
    first = next(iter(results.values()))
    entry = {
        "name": f"bench_train, {options.preset}, {first['device']}",
        "command": "python -m launch.bench_train " + " ".join(argv),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime(started)) + " UTC",
        "hardware": {"device": first["device"], "cores": os.cpu_count(), "threads": os.environ.get("OMP_NUM_THREADS"),
                     "load_average": [round(x, 2) for x in os.getloadavg()]},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        **results,
    }  # fmt: skip
    if len(results) == len(MODES):
        entry["default_over_prior"] = ratios(results)
    record = options.records / "bench_train.json"
    options.records.mkdir(parents=True, exist_ok=True)
    entries = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    entries[entry["name"]] = entry
    record.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    text = "# Training, measured\n\n" + "\n".join(table(entry) for entry in entries.values())
    record.with_suffix(".md").write_text(text, encoding="utf-8")
    print(table(entry))
    return 0


def ratios(results: dict[str, dict]) -> dict[str, float]:
    """default / prior, of rates by wall clock and of turns per CPU second (which other processes don't disturb)."""
    found = {}
    for label in ("loader_included", "loader_excluded"):
        prior, default = results["prior"][label], results["default"][label]
        for key in ("battles_per_s", "turns_per_s"):
            found[f"{label}/{key}"] = default[key] / prior[key]
        found[f"{label}/turns_per_cpu_s"] = default["turns"] / default["cpu_s"] / (prior["turns"] / prior["cpu_s"])
    return found


def table(entry: dict) -> str:
    """One entry as Markdown."""
    modes = [mode for mode in MODES if mode in entry]
    hardware, versions = entry["hardware"], entry["versions"]
    lines = [
        f"## {entry['name']}", "",
        f"`{entry['command']}`, commit {entry['commit']}, {entry['date']}; {hardware['cores']} cores, "
        f"OMP_NUM_THREADS={hardware['threads']}, load {hardware['load_average'][0]} at the end; Python "
        f"{versions['python']}, torch {versions['torch']}. Medians over steps.", "",
        f"| | {' | '.join(modes)} |", f"| --- |{' --- |' * len(modes)}",
    ]  # fmt: skip

    def row(name: str, text) -> None:
        lines.append(f"| {name} | {' | '.join(text(entry[mode]) for mode in modes)} |")

    row("layout; turn encoder", lambda m: f"{m['layout']}; " + encoder_of(m))
    row("compiled; precision; engine", lambda m: f"{m['compiled']}; {m['precision']}; {m['engine']}")
    row("parameters; FLOPs a turn (training)",
        lambda m: f"{m['parameters'] / 1e6:.2f}M; {m['flops_per_turn']['train'] / 1e6:.1f}M")  # fmt: skip
    for label, words in (("loader_included", "with loader"), ("loader_excluded", "without loader")):
        row(f"battles/s, {words}", lambda m, k=label: f"{m[k]['battles_per_s']:.2f}")
        row(f"turns/s, {words}", lambda m, k=label: f"{m[k]['turns_per_s']:.0f}")
        row(f"s a step, median (slowest), {words}",
            lambda m, k=label: f"{m[k]['seconds']:.4f} ({m[k]['slowest_s']:.4f})")  # fmt: skip
    row("battles, turns a step", lambda m: "{battles:.1f}, {turns:.0f}".format(**m["loader_included"]))
    row("padding", lambda m: f"{100 * m['loader_included']['padding_share']:.2f}%")
    row("GFLOP/s of real turns; MFU, without loader", lambda m: efficiency(m["loader_excluded"]))
    row("GPU busy", lambda m: f"{100 * m['gpu_busy_share']:.1f}%" if m["gpu_busy_share"] is not None else "no GPU")
    row("peak memory, GB", lambda m: f"{m['peak_memory_gb']:.2f}")
    row("warm-up (with compilation), s", lambda m: f"{m['warmup_s']:.1f}")
    row("time by part, with loader", lambda m: shares(m["loader_included"]["parts_s"]))
    row("time by part, eager, without loader", lambda m: shares(m["parts_eager_s"] or {}))
    for name, ratio in entry.get("default_over_prior", {}).items():
        lines.append(f"| **default ÷ prior, {name}** |{' |' * (len(modes) - 1)} **{ratio:.1f}×** |")
    return "\n".join(lines) + "\n"


def efficiency(figures: dict) -> str:
    """Arithmetic a second, and its share of the device's peak where that is known."""
    mfu = f"{100 * figures['mfu']:.1f}%" if figures["mfu"] else "no known peak"
    return f"{figures['gflops_per_s']:.0f}; {mfu}"


def encoder_of(mode: dict) -> str:
    """The turn encoder set, or the default's name."""
    chosen = [text.split("=")[1] for text in mode["settings"] if text.startswith("model.turn_encoder=")]
    return chosen[-1] if chosen else "blocks"


def shares(parts: dict[str, float]) -> str:
    """Parts' seconds as percentages of their sum."""
    whole = sum(parts.values())
    return ", ".join(f"{name} {100 * parts[name] / whole:.1f}%" for name in PARTS if name in parts) or "not told apart"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m launch.bench_train", description=__doc__)
    parser.add_argument("--mode", choices=[*MODES, "both"], default="both")
    parser.add_argument("--preset", choices=list(PRESETS), default="tiny")
    parser.add_argument("--data", type=Path, default=Path("data/sample"), help="battle files, or a token cache")
    parser.add_argument("--battles", type=int, help="a micro-batch, in both modes (default: 64 on CUDA, 8 on CPU)")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps measured, each of two micro-batches")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--workers", type=int, help="loader processes (default: 12 on CUDA, 1 on CPU)")
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of the record")
    parser.add_argument("--set", nargs="*", default=[], metavar="a.b=c", help="further settings of the run, both modes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    cuda = torch.cuda.is_available()
    options.battles = options.battles or (64 if cuda else 8)
    options.workers = (12 if cuda else 1) if options.workers is None else options.workers
    if not (ROOT / options.data).exists():
        parser.error(f"--data {options.data}: there is nothing; give a folder of battle files or a token cache")
    if options.steps < 1 or options.warmup < 1:
        parser.error("--steps and --warmup: give 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
