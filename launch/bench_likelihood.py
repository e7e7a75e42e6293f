"""Time to a held-out likelihood: `python -m launch.bench_likelihood --data ../shared/battles --seconds 240`.

The prior attempt's recipe and the default, each in a process of its own for the same seconds, from the same seed and at
the same learning rates, of which each is judged by the one that it ends best with; held-out battles are looked at on
the way. Told: when the default reaches the likelihood that prior ends with, and the other way round. Seconds are those
of the process on its cores, loading included, evaluation not, so other processes disturb them little. Writes
`launch/records/time_to_likelihood.{json,md}`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from launch import bench_train
from launch.bench_train import Bench
from launch.machine import on_cpu
from launch.record import write_record
from trainer.heldout import all_packs
from trainer.scores import collect

ROOT = Path(__file__).parents[1]
# Every action is cloned throughout: once the filter is on, the likelihood of all actions is no longer what is trained
# for, and only the recipe that comes to a thousandth step would meet it.
SETTINGS = [
    "optim.warmup_steps=20", "optim.schedule=constant", "optim.weight_decay=0.1",
    "data.heldout_share=0.1", "compile=false", "precision=fp32", "seed=0",
    "objective.filter_warmup=1000000",
]  # fmt: skip


def scores(bench: Bench, packs: list[dict]) -> dict[str, float]:
    """Mean NLL of recorded actions over held-out decisions with a choice; beside it, of a uniform choice among the
    legal ones, and of an agent that knows only how frequent each slot is there."""
    network = bench.run.objective.network
    by_rows = vars(network).pop("features", None)  # the prior recipe's, which knows its own layout alone
    decisions = collect(network, packs)
    if by_rows is not None:
        network.features = by_rows
    bench.run.module.train()
    choice = decisions["legal"].sum(1) >= 2
    legal, action = decisions["legal"][choice], decisions["action"][choice]
    share = np.bincount(action, minlength=legal.shape[1]) / len(action)
    slots = share[action] / (legal * share).sum(1)
    return {
        "nll": float(decisions["nll"][choice].mean()),
        "uniform_nll": float(np.log(legal.sum(1)).mean()),
        "slot_nll": float(-np.log(slots).mean()),
        "decisions": int(choice.sum()),
    }


def course(bench: Bench, seconds: float, looks: int, heldout: int | None) -> dict:
    """Train for `seconds` of this process's time and look at the held-out battles `looks` times on the way."""
    run, packs = bench.run, bench.packs()
    kept = list(all_packs(run.heldout.some(heldout)))
    run.module.train()
    spent, step, seen, found, began = 0.0, 0, 0, [], time.monotonic()
    while len(found) < looks:
        started = time.process_time()
        micro = list(islice(packs, run.config.batch.accumulate))
        bench.step(step, [run._to_device(pack) for pack in micro], detailed=False)
        step += 1
        spent += time.process_time() - started
        seen += sum(int(pack["valid"].sum()) for pack in micro)
        if spent >= seconds * (len(found) + 1) / looks:
            found.append({"step": step, "seconds": round(spent, 2), **scores(bench, kept)})
            print(f"{bench.options.mode}: step {step}, {spent:.0f} s, held-out NLL {found[-1]['nll']:.4f}", flush=True)
    return {
        "course": found,
        "steps": step,
        "seconds": spent,
        "wall_s": time.monotonic() - began,
        "turns_per_cpu_s": seen / spent,
        "parameters": sum(p.numel() for p in run.objective.network.parameters()),
        "settings": bench_train.settings(bench.options),
    }


def time_to(looks: list[dict], nll: float) -> dict | None:
    """The first look at a likelihood at least as good; None where there is none."""
    return next((look for look in looks if look["nll"] <= nll), None)


def run_child(arguments: list[str]) -> dict:
    """This module's `--child` in a new process, on one core. Raises RuntimeError where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, "-m", "launch.bench_likelihood", *arguments, "--child", str(out)]
        if subprocess.run(command, cwd=ROOT, env=on_cpu(1)).returncode:
            raise RuntimeError(f"failed: {' '.join(command)}")
        return json.loads(out.read_text(encoding="utf-8"))


def compared(modes: dict[str, dict]) -> dict:
    """Each way: the likelihood that one ends with, when it got there, when the other did."""
    ways = {}
    for one, other in (("prior", "default"), ("default", "prior")):
        final = modes[one]["course"][-1]
        reached = time_to(modes[other]["course"], final["nll"])
        ways[f"{other} to {one}'s"] = {
            "nll": final["nll"],
            f"{one}_s": final["seconds"],
            f"{other}_s": reached and reached["seconds"],
            "times_faster": reached and final["seconds"] / reached["seconds"],
        }
    return ways


def table(record: dict) -> str:
    """The record as Markdown."""
    results = record["results"]
    last = results["arms"]["default"][0]["course"][-1]
    arms = [(f"{mode}, lr {arm['lr']:g}", arm) for mode in results["arms"] for arm in results["arms"][mode]]
    lines = [
        "# Time to a held-out likelihood", "",
        f"`{record['command']}`, commit {record['commit']}, {record['date']}; {record['hardware']}. Seconds of the "
        f"process on its cores. NLL over {last['decisions']:,} held-out decisions; a uniform legal choice "
        f"{last['uniform_nll']:.3f}, slots' frequencies {last['slot_nll']:.3f}.", "",
        "| | steps | turns a core-second | held-out NLL (at seconds) |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, arm in arms:
        way = ", ".join(f"{look['nll']:.3f} ({look['seconds']:.0f})" for look in arm["course"])
        lines.append(f"| {name} | {arm['steps']} | {arm['turns_per_cpu_s']:.0f} | {way} |")
    rates = ", ".join(f"{mode} {lr:g}" for mode, lr in results["best_lr"].items())
    lines += ["", f"Each at the learning rate that it ends best with: {rates}.", ""]
    for name, way in results["time_to_likelihood"].items():
        first, second = (value for key, value in way.items() if key.endswith("_s"))
        told = f"{second:.0f} s: {way['times_faster']:.1f}× faster" if second else "not reached"
        lines.append(f"- {name} held-out NLL of {way['nll']:.4f} (there after {first:.0f} s): {told}")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both modes at each learning rate and write the record."""
    argv = sys.argv[1:] if argv is None else list(argv)
    options = parse(argv)
    if options.child:
        bench = Bench(bench_train.parse(train_arguments(options)))
        result = course(bench, options.seconds, options.looks, options.heldout)
        Path(options.child).write_text(json.dumps(result), encoding="utf-8")
        return 0
    try:
        arms = {
            mode: [run_child([*argv, "--mode", mode, "--lr", str(lr)]) | {"lr": lr} for lr in options.lr]
            for mode in ("prior", "default")
        }
    except RuntimeError as error:
        print(f"{error}\nnothing is recorded", file=sys.stderr)
        return 1
    modes = {mode: min(tried, key=lambda arm: arm["course"][-1]["nll"]) for mode, tried in arms.items()}
    best = {mode: arm["lr"] for mode, arm in modes.items()}
    results = {"arms": arms, "best_lr": best, "time_to_likelihood": compared(modes)}
    command = "python -m launch.bench_likelihood " + " ".join(argv)
    path = write_record("time_to_likelihood", command, results, {"torch": torch.__version__})
    text = table(json.loads(path.read_text(encoding="utf-8")))
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def train_arguments(options: argparse.Namespace) -> list[str]:
    """The same as arguments of `launch.bench_train`, whose modes are measured."""
    return [
        "--mode", options.mode, "--preset", options.preset, "--data", str(options.data), "--battles",
        str(options.battles), "--workers", "0", "--set", *SETTINGS, f"optim.lr={options.lr[0]}", *options.set,
    ]  # fmt: skip


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m launch.bench_likelihood", description=__doc__)
    parser.add_argument("--mode", choices=["prior", "default"], default="default", help=argparse.SUPPRESS)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--data", type=Path, default=Path("data/sample"), help="battle files, or a token cache")
    parser.add_argument("--seconds", type=float, default=240.0, help="of each mode and rate")
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3], help="learning rates to try for each mode")
    parser.add_argument("--battles", type=int, default=16, help="a step, in both modes; an even number")
    parser.add_argument("--looks", type=int, default=24, help="held-out evaluations on the way")
    parser.add_argument("--heldout", type=int, default=100, help="held-out battles read at each")
    parser.add_argument("--set", nargs="*", default=[], metavar="a.b=c", help="further settings of both modes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
