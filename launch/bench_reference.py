"""Against the reference: `python -m launch.bench_reference --data ../shared/battles`.

The reference (Metamon with AMAGO) was measured on the same battle files, on two cores in fp32, 16 battles × 128 turns a
batch: its figures are those of `battles/README.md` beside the data, repeated in `REFERENCE`. Ours, at parameter counts
within 3% and the same objective (by imitation ours trains its critics too): turns a second by the wall, two threads,
and turns a second of one core's time, which other processes disturb less. Then the time to the reference's held-out
likelihood. Its held-out battles are not ours, so three bars are set and all must be passed: its NLL itself, and its
lead over a uniform legal choice and over slots' frequencies. Writes `launch/records/reference_speed.{json,md}`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from data.terminal import first_line
from launch.bench_likelihood import run_child
from launch.machine import on_cpu
from launch.record import write_record

ROOT = Path(__file__).parents[1]
CORES = 2
REFERENCE = {
    "full objective": {"parameters": 11.7e6, "turns_per_s": 46.0, "battles_per_s": 1.0, "peak_memory_gb": 13.7},
    "imitation": {
        "parameters": 1.8e6, "turns_per_s": 219.0, "battles_per_s": 5.0,
        "seconds": 900.0, "nll": 1.746, "uniform_nll": 1.825, "slot_nll": 1.764,
    },
}  # fmt: skip
OURS = {
    "full objective": ["small", "model.num_layers=6", "model.mlp_size=896"],
    "imitation": ["tiny", "model.num_layers=7", "model.mlp_size=328", "objective.filter=imitation"],
}


def speed(options: argparse.Namespace, case: str) -> dict:
    """One case by `launch.bench_train`, in a process with two threads; the loader in it. Raises RuntimeError."""
    preset, *settings = OURS[case]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [
            sys.executable, "-m", "launch.bench_train", "--mode", "default", "--preset", preset, "--data", options.data,
            "--battles", "16", "--workers", "0", "--steps", str(options.steps), "--warmup", "2", "--child", str(out),
            "--set", "precision=fp32", "compile=false", *settings,
        ]  # fmt: skip
        if subprocess.run(command, cwd=ROOT, env=on_cpu(CORES)).returncode:
            raise RuntimeError(f"{case}: bench_train failed, see above")
        measured = json.loads(out.read_text(encoding="utf-8"))
    figures, theirs = measured["loader_included"], REFERENCE[case]
    core = figures["turns"] / figures["cpu_s"]
    return {
        "reference": theirs,
        "parameters": measured["parameters"],
        "parameters_ratio": measured["parameters"] / theirs["parameters"],
        "turns_per_s": figures["turns_per_s"],
        "battles_per_s": figures["battles_per_s"],
        "times_by_wall": figures["turns_per_s"] / theirs["turns_per_s"],
        "turns_per_core_s": core,
        "times_by_core": CORES * core / theirs["turns_per_s"],
        "padding_share": figures["padding_share"],
        "peak_memory_gb": measured["peak_memory_gb"],
        "seconds_a_step": figures["seconds"],
        "settings": measured["settings"],
        "load_average": [round(x, 2) for x in os.getloadavg()],
    }


def likelihood(options: argparse.Namespace) -> dict:
    """The imitator's course, and when it passes the reference's bars. Raises RuntimeError."""
    preset, *settings = OURS["imitation"]
    measured = run_child(
        ["--data", options.data, "--preset", preset, "--seconds", str(options.seconds), "--battles", "16", "--looks",
         str(options.looks), "--heldout", "200", "--set", *settings],
    )  # fmt: skip
    theirs = REFERENCE["imitation"]
    last = measured["course"][-1]
    bars = {
        "its NLL": theirs["nll"],
        "its lead over a uniform choice": last["uniform_nll"] - (theirs["uniform_nll"] - theirs["nll"]),
        "its lead over slots' frequencies": last["slot_nll"] - (theirs["slot_nll"] - theirs["nll"]),
    }
    passed = next((look for look in measured["course"] if look["nll"] <= min(bars.values())), None)
    return {
        "bars": bars,
        "reference_core_s": CORES * theirs["seconds"],
        "ours_core_s": passed and passed["seconds"],
        "share_of_its_time": passed and passed["seconds"] / (CORES * theirs["seconds"]),
        **measured,
    }


def table(record: dict) -> str:
    """The record as Markdown."""
    results, likely = record["results"], record["results"]["likelihood"]
    lines = [
        "# Against the reference", "",
        f"`{record['command']}`, commit {record['commit']}, {record['date']}; {record['hardware']} "
        f"(load {results['speed']['full objective']['load_average'][0]}). The reference: Metamon with AMAGO on two "
        "cores (`launch/bench_reference.py` repeats its figures). By the wall: two threads, as busy as the machine "
        "was. By core: turns a second of one core's time, times two.", "",
        "| | parameters (theirs) | turns/s by wall | of one core | theirs | × by wall | × by core | GB (theirs) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for case, found in results["speed"].items():
        theirs = found["reference"]
        memory = f"{theirs['peak_memory_gb']}" if "peak_memory_gb" in theirs else "not told"
        lines.append(
            f"| {case} | {found['parameters'] / 1e6:.2f}M ({theirs['parameters'] / 1e6:.1f}M) "
            f"| {found['turns_per_s']:.0f} | {found['turns_per_core_s']:.0f} | {theirs['turns_per_s']:.0f} "
            f"| **{found['times_by_wall']:.1f}** | **{found['times_by_core']:.1f}** "
            f"| {found['peak_memory_gb']:.2f} ({memory}) |"
        )
    bars = ", ".join(f"{name} {value:.3f}" for name, value in likely["bars"].items())
    told = (
        f"passed after {likely['ours_core_s']:.0f} core-seconds, {100 * likely['share_of_its_time']:.1f}% of its "
        f"{likely['reference_core_s']:.0f}"
        if likely["ours_core_s"]
        else f"not passed within {likely['seconds']:.0f} core-seconds"
    )
    way = ", ".join(f"{look['nll']:.3f} ({look['seconds']:.0f})" for look in likely["course"])
    lines += ["", f"Held-out likelihood, by imitation. Bars on our held-out battles: {bars}. All {told}.", "",
              f"Held-out NLL (at core-seconds): {way}."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both cases and the likelihood; write the record."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog="python -m launch.bench_reference", description=first_line(__doc__))
    parser.add_argument("--data", default="../shared/battles", help="the battle files that the reference was timed on")
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps timed")
    parser.add_argument("--seconds", type=float, default=180.0, help="of a core, to train towards the likelihood")
    parser.add_argument("--looks", type=int, default=18, help="held-out evaluations on the way")
    options = parser.parse_args(argv)
    try:
        results = {"speed": {case: speed(options, case) for case in OURS}, "likelihood": likelihood(options)}
    except RuntimeError as error:
        print(f"{error}\nnothing is recorded", file=sys.stderr)
        return 1
    command = "python -m launch.bench_reference " + " ".join(argv)
    path = write_record("reference_speed", command.strip(), results, {"torch": torch.__version__})
    text = table(json.loads(path.read_text(encoding="utf-8")))
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
