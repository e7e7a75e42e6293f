"""The host's side of a training step on an H100, with no GPU at hand: `make gpu-dry-run`.

Runs the default configuration's step on the stand-in, each way in a process of its own, and prints what a step asks of
the host: launches, synchronizations, milliseconds. Fails where the compiled step is not one graph, is compiled twice,
or waits for the device.
"""

import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAYS = {
    "plain": [],
    "CUDA graphs": ["cuda_graphs=true"],
    "DeepSpeed ZeRO 1": ["deepspeed=ds_configs/zero1.json"],
}
WAITS = ("synchronizations", "copies_to_host")
COUNTERS = ("launches", *WAITS, "replays")
STEPS = 10


def counters() -> dict[str, int]:
    """What the stand-in has counted so far; kernels of Triton's under `driver_launches`."""
    preloaded, driver = ctypes.CDLL(None), ctypes.CDLL("libcuda.so.1")
    found = {name: getattr(preloaded, f"stand_in_{name}")() for name in COUNTERS}
    return {**found, "driver_launches": driver.stand_in_driver_launches()}


def measure(settings: list[str]) -> dict:
    """One way's figures, in this process."""
    from torch._dynamo.utils import counters as compiled

    from data.loader import make_loader
    from trainer.config import load_config
    from trainer.loop import Run

    run = Run(load_config(ROOT / "launch" / "runs" / "h100_1gpu.yaml", settings))
    drawn = list(islice(make_loader(run.dataset, run.config.batch, seed=0, max_steps=4), 4))
    packs = [run._to_device(pack) for pack in drawn]
    run.module.train()
    began = time.perf_counter()
    for step, pack in enumerate(packs):
        run.step(step, [pack])
    warm, before, graphs, spent = time.perf_counter() - began, counters(), compiled["stats"]["unique_graphs"], []
    for step, pack in enumerate(islice(cycle(packs), STEPS), len(packs)):
        began = time.perf_counter()
        run.step(step, [pack], detailed=False)
        spent.append(time.perf_counter() - began)
    after, rows = counters(), []
    for step, (pack, on_host) in enumerate(zip(packs, drawn, strict=True), len(packs) + STEPS):
        began = time.perf_counter()
        metrics = run.step(step, [pack])
        run.skips.note(step, metrics["optim/skipped"], [on_host])
        run.clock.count([on_host])
        run.rows.send({}, metrics)
        rows.append(time.perf_counter() - began)
    logged = counters()
    return {
        "graphs": graphs,
        "graphs_later": compiled["stats"]["unique_graphs"] - graphs,
        "breaks": dict(compiled["graph_break"]),
        "ms": 1e3 * statistics.median(spent),
        "first_steps_s": warm,
        "row_ms": 1e3 * statistics.median(rows),
        "row_waits": sum(logged[name] - after[name] for name in WAITS) / len(packs),
        **{name: (after[name] - before[name]) / STEPS for name in before},
    }


def waits(found: dict) -> float:
    """How often a step waits for the device."""
    return sum(found[name] for name in WAITS)


def wrong(way: str, found: dict) -> list[str]:
    """What must not be."""
    said = []
    if (found["graphs"], found["graphs_later"], found["breaks"]) != (1, 0, {}):
        said.append(f"{way}: not one graph, once: {found['graphs']}, later {found['graphs_later']}, {found['breaks']}")
    if waits(found):
        said.append(f"{way}: a step waits for the device {waits(found)} times")
    if found["row_waits"]:
        said.append(f"{way}: a logged step waits for the device {found['row_waits']} times before its row is read")
    return said


def main(settings: list[str]) -> int:
    """Measure every way, print a table; returns 1 where something is wrong."""
    if settings[:1] == ["--child"]:
        Path(settings[1]).write_text(json.dumps(measure(settings[2:])), encoding="utf-8")
        return 0
    failures = []
    heads = ("way", "graphs", "kernels: Triton's, others", "graph replays", "waits", "host, ms a step",
             "waits, ms of a logged step", "first steps, s")  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for way, of_way in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "found.json"
            common = ["data.path=data/sample", f"output={folder}/run", "data.workers=0", "epochs=null",
                      "max_steps=1000", "log.wandb=false", "log.progress=false", "data.heldout_share=0.1"]  # fmt: skip
            command = [sys.executable, "-m", "tests.cuda_stand_in.dry_run", "--child", str(out)]
            done = subprocess.run([*command, *common, *of_way, *settings], cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                failures.append(f"{way}: failed\n{done.stderr[-3000:]}")
                continue
            found = json.loads(out.read_text(encoding="utf-8"))
        cells = (
            way,
            f"{found['graphs']}",
            f"{found['driver_launches']:.0f}, {found['launches']:.0f}",
            f"{found['replays']:.0f}",
            f"{waits(found):.1f}",
            f"{found['ms']:.1f}",
            f"{found['row_waits']:.1f}, {found['row_ms']:.1f}",
            f"{found['first_steps_s']:.0f}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)
        failures += wrong(way, found)
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
