"""Every launcher × world × engine on CPU: does each train, resume and export, and with the same numbers?

    python -m launch.bench_engines [--rows torchrun-2 …]

Each row is a short run (20 steps of `tiny`, fp32, clipping on, two micro-batches, the filter coming on midway), held
against plain PyTorch in one process: losses and gradient norms of every step, and the parameters at the end. Then its
checkpoint of step 10 is resumed by plain PyTorch in one process, and exported. Writes `launch/records/engines.json` and
its table. Speeds are medians over steps of the same run, as ratios to the plain row of the same number of processes.
"""

import argparse
import contextlib
import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import psutil
from safetensors.torch import load_file

from launch.machine import on_cpu
from launch.record import write_record
from trainer import checkpoint
from trainer.config import CheckpointConfig
from trainer.world import free_port

ROOT = Path(__file__).parents[1]
STEPS, SAVED = 20, 10
SILENCE_S = 60  # without a word, once the first step is done: a deadlock
START_S = 240  # to the first step, which takes about 20 on a machine with nothing else to do
COMPARED = ("loss/policy", "loss/critic", "optim/grad_norm")
SETTINGS = (
    "precision=fp32", "compile=false", "epochs=null", "model.preset=tiny", "model.value_bins=32", "data.workers=0",
    "data.heldout_share=0.15", "data.max_turns=64", "batch.battles=4", "batch.accumulate=2", "batch.plan=battles",
    "batch.turns=256", "optim.warmup_steps=5", "optim.grad_clip=0.5", "objective.filter_warmup=12", "log.every=1",
    "log.progress=false", "log.report=false", "eval.every=0", "eval.battles=16", "eval.calibration_battles=20",
    # Smooth: one advantage near 0 whose sign a last bit decides moves the binary filter's loss by a fifth of a percent.
    "objective.filter=exponential",
)  # fmt: skip


class Row(NamedTuple):
    """One cell of the matrix; `str()` names it."""

    launcher: str  # alone | torchrun | accelerate | deepspeed
    world: int
    engine: str  # plain | fsdp2 | zero1 | zero2 | zero3

    def __str__(self) -> str:
        return f"{self.launcher}-{self.world}-{self.engine}"


ENGINES = ("plain", "zero1", "zero2", "zero3")
PLAIN = Row("alone", 1, "plain")
ROWS = [Row("alone", 1, engine) for engine in ENGINES]
ROWS += [
    Row(launcher, world, engine)
    for launcher in ("torchrun", "accelerate", "deepspeed")
    for world in (1, 2)
    for engine in ENGINES
]
ROWS.append(Row("torchrun", 2, "fsdp2"))
# accelerate starts a world of one where two plain CPU processes are asked for, and says nothing: the run refuses.
REFUSED = {Row("accelerate", 2, "plain")}


def command_of(row: Row) -> list[str]:
    """What a person would type for a row, its settings left out."""
    port, python = free_port(), sys.executable
    train = ["trainer.train", f"processes={row.world}"]
    if row.engine == "fsdp2":
        train.append("parallel=fsdp2")
    elif row.engine != "plain" and row.launcher != "accelerate":
        train.append(f"deepspeed=ds_configs/{row.engine}.json")
    if row.launcher == "torchrun":
        return [
            python, "-m", "torch.distributed.run", f"--nproc-per-node={row.world}", f"--master-port={port}", "-m",
            *train,
        ]  # fmt: skip
    if row.launcher == "accelerate":
        file = f"launch/accelerate/cpu_2proc_{row.engine}.yaml"
        how = ["--cpu"] if row.engine == "plain" else [f"--config_file={file}"]
        count = f"--num_processes={row.world}"
        return [
            python, "-m", "accelerate.commands.launch", f"--main_process_port={port}", *how, count, "-m", *train,
        ]  # fmt: skip
    if row.launcher == "deepspeed":
        return [
            python, "-m", "deepspeed.launcher.runner", f"--num_accelerators={row.world}", f"--master_port={port}",
            "--module", *train,
        ]  # fmt: skip
    return [python, "-m", *train]


def environment() -> dict[str, str]:
    """One thread a process, and no GPU."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return on_cpu(1) | {"DS_ACCELERATOR": "cpu", "PATH": path}


def launch(row: Row, output: Path, *settings: str, steps: int = STEPS) -> tuple[int, str]:
    """Run a row of the matrix: its exit code and what it printed. Raises TimeoutError as `watched` does."""
    return watched([*command_of(row), *settings_of(output, *settings, steps=steps)], output, environment())


def settings_of(output: Path, *settings: str, steps: int = STEPS) -> list[str]:
    """All settings of a row's run."""
    return [*SETTINGS, f"max_steps={steps}", f"checkpoint.every={SAVED}", f"output={output}", *settings]


def watched(command: Sequence[str], output: Path, variables: dict[str, str]) -> tuple[int, str]:
    """Run a training command that writes to `output`; its exit code and what it printed.

    Raises TimeoutError, all its processes killed, where it says nothing for START_S seconds before its first step,
    or for SILENCE_S after it: a process that waits for another for ever ends here.
    """
    log = output / "training_log.csv"
    with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=printed, stderr=subprocess.STDOUT, env=variables, start_new_session=True
        )
        sizes, heard = None, time.monotonic()
        try:
            while process.poll() is None:
                time.sleep(0.1)
                logged = log.stat().st_size if log.exists() else 0
                if (now := (os.fstat(printed.fileno()).st_size, logged)) != sizes:
                    sizes, heard = now, time.monotonic()
                limit = SILENCE_S if logged else START_S
                if time.monotonic() - heard > limit:
                    printed.seek(0)
                    raise TimeoutError(f"{command}: not a word for {limit} s\n{printed.read()[-3000:]}")
        finally:
            if process.poll() is None:
                # Launchers give their processes sessions of their own: the group's kill does not reach them.
                for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.kill()
                process.wait()
        printed.seek(0)
        return process.returncode, printed.read()


def curve(output: Path) -> dict[int, list[float]]:
    """Step → compared figures."""
    with open(output / "training_log.csv", newline="", encoding="utf-8") as file:
        return {int(row["step"]): [float(row[name]) for name in COMPARED] for row in csv.DictReader(file)}


def difference(ours: dict[int, list[float]], theirs: dict[int, list[float]]) -> float:
    """Greatest relative difference of any figure at any common step. Raises ValueError where steps are missing."""
    if not ours or not set(ours) <= set(theirs):
        raise ValueError(f"steps {sorted(ours)} are not among {sorted(theirs)}")
    return max(abs(a - b) / max(abs(b), 1e-6) for step in ours for a, b in zip(ours[step], theirs[step], strict=True))


def parameters_apart(ours: Path, theirs: Path) -> float:
    """Greatest absolute difference between two checkpoints' parameters."""
    a, b = (load_file(folder / "model" / "model.safetensors") for folder in (ours, theirs))
    return max((a[name] - b[name]).abs().max().item() for name in b)


def speeds(output: Path) -> dict[str, float]:
    """Turns a second, median over steps but the first two; and the share of the time that saving would hold training up
    at the default interval, from what the first save held up here."""
    with open(output / "training_log.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[2:]
    turns = statistics.median([float(row["speed/turns_per_s"]) for row in rows])
    step_s = statistics.median([float(row["speed/turns_per_s"]) / float(row["speed/battles_per_s"]) for row in rows])
    step_s *= 8 / turns  # the settings' 4 × 2 battles a step
    held = max(float(row["checkpoint/held_s"]) for row in rows)
    return {"turns_per_s": round(turns), "held_share": held / (CheckpointConfig().every * step_s)}


def measure(row: Row, base: Path, folder: Path, *settings: str) -> dict:
    """Train, resume by plain PyTorch, export. Raises RuntimeError with the run's words where one of them fails."""
    output, again = folder / str(row), folder / f"{row}-resumed"
    code, text = launch(row, output, *settings)
    if row in REFUSED:
        if code == 0 or "processes" not in text:
            raise RuntimeError(f"{row}: was to be refused, but ended with {code}\n{text[-3000:]}")
        return {"refused": True}
    if code != 0:
        raise RuntimeError(f"{row}: exit code {code}\n{text[-3000:]}")
    name = f"step_{STEPS:08d}"
    shutil.copytree(output / f"step_{SAVED:08d}", again / f"step_{SAVED:08d}")
    code, text = launch(PLAIN, again, *settings)
    if code != 0 or f"at step {SAVED}" not in text:
        raise RuntimeError(f"{row}: its checkpoint was not resumed\n{text[-3000:]}")
    if checkpoint.main(["export", str(output), "--to", str(folder / "exported")]):
        raise RuntimeError(f"{row}: its agent was not exported")
    return {
        "steps": difference(curve(output), curve(base)),
        "parameters": parameters_apart(output / name, base / name),
        "resumed": difference(curve(again), curve(base)),
        **speeds(output),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rows asked for and write the record where that is all of them."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.bench_engines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=str(ROOT / "data" / "sample"), help="battle files")
    parser.add_argument("--rows", nargs="*", help="rows whose name holds one of these; no record is written")
    options = parser.parse_args(argv)
    rows = [row for row in ROWS if not options.rows or any(part in str(row) for part in options.rows)]
    results, failed = {}, 0
    with tempfile.TemporaryDirectory(prefix="turnwise-engines-") as scratch:
        base = Path(scratch) / "base"
        code, text = launch(PLAIN, base, f"data.path={options.data}")
        if code != 0:
            print(text, file=sys.stderr)
            return 1
        for row in rows:
            try:
                results[str(row)] = measure(row, base, Path(scratch), f"data.path={options.data}")
            except (RuntimeError, TimeoutError, ValueError, subprocess.SubprocessError) as error:
                failed += 1
                results[str(row)] = {"failed": str(error)[:500]}
                print(error, file=sys.stderr)
            print(row, results[str(row)], flush=True)
    if not options.rows:
        versions = {name: version(name) for name in ("torch", "accelerate", "deepspeed")}
        path = write_record("engines", "python -m launch.bench_engines", results, versions)
        path.with_suffix(".md").write_text(table(results), encoding="utf-8")
    return int(failed > 0)


def table(results: dict[str, dict]) -> str:
    """The matrix as Markdown, its greatest differences last."""
    plain = {world: results[f"{name}-{world}-plain"] for world, name in ((1, "alone"), (2, "torchrun"))}
    lines = [
        "# One model, every launcher and engine", "",
        f"`python -m launch.bench_engines`: {STEPS} steps of `tiny` in fp32 on CPU against plain PyTorch in one "
        "process. Greatest relative difference of losses and gradient norms over all steps; greatest absolute "
        f"difference of parameters at the end; the same after plain PyTorch resumed the row's step {SAVED}; speed over "
        "plain PyTorch's of the same number of processes (2 shared cores: two processes, no gain).", "",
        "| launcher × processes | engine | steps | parameters | resumed by plain | speed over plain |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    sound = []
    for name, result in results.items():
        launcher, world, engine = name.split("-")
        if "steps" not in result:
            word = "refused, with the reason" if result.get("refused") else "FAILED"
            lines.append(f"| {launcher} × {world} | {engine} | {word} | | | |")
            continue
        sound.append(result)
        ratio = result["turns_per_s"] / plain[int(world)]["turns_per_s"]
        lines.append(
            f"| {launcher} × {world} | {engine} | {result['steps']:.1e} | {result['parameters']:.1e} | "
            f"{result['resumed']:.1e} | {ratio:.2f} |"
        )
    worst = {key: max(result[key] for result in sound) for key in ("steps", "parameters", "resumed")}
    lines += ["", "Greatest: " + ", ".join(f"{key} {value:.1e}" for key, value in worst.items()) + "."]
    held = results[str(PLAIN)]["held_share"]
    lines.append(f"\nSaving holds training up for {held:.3%} of the time at the default interval (plain, one process).")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
