"""Optimizers at equal time: `python -m launch.bench_optim --data CACHE --arms adamw:1e-3 muon:1e-3 --seconds 180`.

Each arm is a process of its own: it times a few steps, sets the number of steps that fill the given seconds (so that
each arm's learning rate has run its whole schedule when the time is up), and trains the same network from the same
seed on the same order of packs. Seconds are those of the process on its core, loading included and evaluation not:
other processes don't disturb them. A GPU is not used. Writes `launch/records/optimizers.{json,md}`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from launch.machine import on_cpu
from launch.record import RECORDS, as_recorded, write_record
from trainer.config import load_config
from trainer.loop import Run
from trainer.quick_score import QuickScore

ROOT = Path(__file__).parents[1]
TIMED = 8  # steps by which an arm's speed is told, after three that warm up


def settings(options: argparse.Namespace, arm: str, steps: int) -> list[str]:
    """What the benchmark sets of a run's configuration, for an arm `NAME:LR[:muon_scale]`."""
    name, lr, *scale = arm.split(":")
    return [
        f"model.preset={options.preset}", f"data.path={options.data}", "data.heldout_share=0.05", "data.workers=0",
        f"batch.battles={options.battles}", "batch.accumulate=1", "objective.filter=imitation",
        "objective.filter_warmup=0", "optim.weight_decay=0.1", "optim.warmup_steps=100", "optim.min_lr_ratio=0.05",
        f"optim.name={name}", f"optim.lr={lr}", *(f"optim.muon_scale={x}" for x in scale), f"seed={options.seed}",
        "precision=fp32", "compile=false", "epochs=null", f"max_steps={steps}", "log.progress=false", *options.set,
    ]  # fmt: skip


def prepared(options: argparse.Namespace, arm: str, steps: int, output: str) -> Run:
    """A run that is ready for its first step."""
    run = Run(load_config(None, [*settings(options, arm, steps), f"output={output}"]))
    run.course.open(0)
    run.module.train()
    return run


def measure(options: argparse.Namespace, arm: str, output: str) -> dict:
    """Train one arm for `options.seconds` of its process's time. Returns its figures and its course."""
    probe, taken = prepared(options, arm, 10**6, output), []
    for step in range(3 + TIMED):
        started = time.process_time()
        probe.step(step, probe.course.micro(step), detailed=False)
        taken.append(time.process_time() - started)
    a_step = statistics.median(taken[3:])
    steps = max(1, round(options.seconds / a_step))
    run, spent, course = prepared(options, arm, steps, output), 0.0, []
    began, marks = time.monotonic(), {round(steps * share / options.looks) for share in range(1, options.looks + 1)}
    for step in range(steps):
        started = time.process_time()
        run.step(step, run.course.micro(step), detailed=False)
        spent += time.process_time() - started
        if step + 1 in marks:
            last = step + 1 == steps
            judged = run.heldout if last else run.heldout.some(options.heldout)
            scores = QuickScore(judged, run.accelerator)(run.objective.network)
            run.module.train()
            course.append({"step": step + 1, "seconds": round(spent, 2), "heldout_nll": scores["heldout/nll"]})
            print(
                f"{arm}: step {step + 1} of {steps}, {spent:.0f} s, held-out NLL {scores['heldout/nll']:.4f}",
                flush=True,
            )
    return {
        "arm": arm, "steps": steps, "seconds": spent, "wall_s": time.monotonic() - began,
        "seconds_a_step": spent / steps, "heldout_nll": scores["heldout/nll"],
        "heldout_accuracy": scores["heldout/accuracy"], "decisions": scores["heldout/decisions"], "course": course,
        "parameters": sum(p.numel() for p in run.objective.network.parameters()),
    }  # fmt: skip


def table(record: dict) -> str:
    """The record as Markdown, best held-out likelihood first."""
    results = record["results"]
    first = results["arms"][0]
    lines = [
        "# Optimizers at equal time", "",
        f"`{record['command']}`, commit {record['commit']}, {record['date']}; {record['hardware']}. "
        f"{first['parameters'] / 1e6:.2f}M parameters, imitation, {results['seconds']:.0f} s of one core an arm "
        f"(loading included, evaluation not), held-out NLL over {first['decisions']:,.0f} decisions.", "",
        "| optimizer : lr (: `muon_scale`) | steps | ms a step | held-out NLL | top-1 | its NLL on the way |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for arm in sorted(results["arms"], key=lambda arm: arm["heldout_nll"]):
        way = ", ".join(f"{look['heldout_nll']:.3f}" for look in arm["course"][:-1])
        lines.append(
            f"| {arm['arm']} | {arm['steps']:,} | {1e3 * arm['seconds_a_step']:.0f} | {arm['heldout_nll']:.4f} "
            f"| {100 * arm['heldout_accuracy']:.2f}% | {way} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every arm, each in a process of its own; write the record."""
    argv = sys.argv[1:] if argv is None else list(argv)
    options = parse(argv)
    if options.child:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(options, options.arms[0], folder)
        Path(options.child).write_text(json.dumps(result), encoding="utf-8")
        return 0
    arms = kept_arms(options)
    for arm in options.arms:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "result.json"
            command = [sys.executable, "-m", "launch.bench_optim", *argv, "--arms", arm, "--child", str(out)]
            if subprocess.run(command, cwd=ROOT, env=on_cpu(1)).returncode:
                print(f"{arm}: failed, see above; it is not recorded", file=sys.stderr)
                return 1
            arms.append(json.loads(out.read_text(encoding="utf-8")))
        # After each arm, so that a benchmark that is stopped leaves what it has measured.
        text = write("python -m launch.bench_optim " + " ".join(argv), options, arms)
    print(text)
    return 0


def kept_arms(options: argparse.Namespace) -> list[dict]:
    """With `--keep`, the arms that the record holds of the same settings and seconds, but those to be measured anew."""
    path = RECORDS / "optimizers.json"
    if not options.keep or not path.exists():
        return []
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    if (results["seconds"], results["settings"]) != (options.seconds, as_recorded(settings(options, "NAME:LR", 0))):
        return []
    return [arm for arm in results["arms"] if arm["arm"] not in options.arms]


def write(command: str, options: argparse.Namespace, arms: list[dict]) -> str:
    """Write the record and its table; returns the table."""
    results = {"seconds": options.seconds, "settings": settings(options, "NAME:LR", 0), "arms": arms}
    path = write_record("optimizers", command, results, {"torch": torch.__version__})
    text = table(json.loads(path.read_text(encoding="utf-8")))
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m launch.bench_optim", description=__doc__)
    parser.add_argument("--arms", nargs="+", default=["adamw:1e-3", "muon:1e-3"], metavar="NAME:LR[:SCALE]")
    parser.add_argument("--data", default="data/sample", help="battle files, or a token cache")
    parser.add_argument("--seconds", type=float, default=180.0, help="of each arm")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--battles", type=int, default=32, help="a step")
    parser.add_argument("--looks", type=int, default=4, help="held-out evaluations, the last one over all of it")
    parser.add_argument("--heldout", type=int, default=150, help="held-out battles read on the way")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="a.b=c", help="further settings of every arm")
    parser.add_argument("--keep", action="store_true", help="go on with the record: other arms of the same settings")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
