"""Measures the data room: `python -m launch.bench_data [--battles DIR] [--files N] [--only PART …]`.

One run, medians of several repeats, each part beside the reference loader's figures (4,100–5,300 turns/s on one core,
193–260 µs a turn, measured on these files on this kind of machine). A run of all parts writes the record
`launch/records/bench_data.json` and its table `.md`; a run of some prints their figures.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from data.cache import CacheJob, make_cache
from data.collate import build_pack
from data.dataset import BattleDataset, DataConfig
from data.encode import Encoder
from data.index import open_index
from data.loader import BatchConfig, make_loader
from data.replay_file import decode_lean, read_lean, unpack
from data.sampler import Plan, pack_shape
from data.tokenizer import Tokenizer
from launch.record import write_record

ROOT = Path(__file__).parents[1]
REFERENCE_TURNS_PER_S = (4_100, 5_300)
REPEATS = 3
WORKERS_OF_A_NODE = 12
FORMATS = ("gen1ou", "gen2ou", "gen3ou", "gen4ou", "gen9ou")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for; write the record where that is all of them."""
    parser = argparse.ArgumentParser(prog="python -m launch.bench_data", description=__doc__)
    parser.add_argument("--battles", type=Path, default=ROOT.parent / "shared" / "battles", help="real battle files")
    parser.add_argument("--files", type=int, default=1_000_000, help="files of the index to be scanned")
    parser.add_argument("--scratch", type=Path, help="where they are made (default: the system's temporary folder)")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), help="some parts, for a look: no record is written")
    options = parser.parse_args(argv)
    if not options.battles.is_dir():
        parser.error(f"--battles {options.battles}: is no folder; give one of battle files")
    results: dict[str, Any] = {"load_average_at_start": round(os.getloadavg()[0], 2)}
    # Whole: links are made in it.
    place = options.scratch and options.scratch.resolve()
    with tempfile.TemporaryDirectory(dir=place, prefix="turnwise-bench-") as scratch:
        os.environ["TURNWISE_CACHE"] = str(Path(scratch) / "indexes")
        for name in options.only or PARTS:
            print(f"{name} …", flush=True)
            results[name] = PARTS[name](options, Path(scratch))
            print(json.dumps(results[name], indent=1), flush=True)
    if not options.only:
        command = " ".join(["python -m launch.bench_data", *(sys.argv[1:] if argv is None else argv)])
        versions = {name: version(name) for name in ("torch", "datasets", "msgspec", "lz4", "numpy")}
        path = write_record("bench_data", command, results, versions)
        path.with_suffix(".md").write_text(table(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


def median_seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Median time of several repeats. One core's work is timed by its own CPU time, `time.process_time`: other
    processes' turns on that core are not in it."""
    times = []
    for _ in range(REPEATS):
        started = clock()
        work()
        times.append(clock() - started)
    return statistics.median(times)


def each(work: Callable[[Any], object], items: Sequence[Any]) -> Callable[[], None]:
    """Do the work on every item, keeping nothing."""

    def run() -> None:
        for item in items:
            work(item)

    return run


def make_names(root: Path, count: int) -> None:
    """Empty files with battles' names: `count` over five formats."""
    for name in FORMATS:
        folder = root / name
        folder.mkdir(parents=True)
        rng = random.Random(name)
        descriptor = os.open(folder, os.O_RDONLY)
        for i in range(count // len(FORMATS)):
            file = (
                f"{name}-{rng.randrange(10**9)}{i}_{rng.randrange(1000, 2000)}_Player{rng.randrange(10**6)}_vs_"
                f"Rival{rng.randrange(10**6)}_{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}-"
                f"{rng.randrange(2014, 2025)}_{'WIN' if i % 2 else 'LOSS'}.json.lz4"
            )
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=descriptor))
        os.close(descriptor)


def bench_index(options: argparse.Namespace, scratch: Path) -> dict:
    """Scan a million files; open and plan four million rows; memory of 12 workers."""
    root = scratch / "million"
    make_names(root, options.files)
    settle()
    open_index(root, rescan=True)  # the system's cache is warm after this
    scan = median_seconds(lambda: open_index(root, rescan=True))
    # Four times as many rows: the same folders under four names each.
    wide = scratch / "wide"
    wide.mkdir()
    for name in FORMATS:
        for copy in ("", "x", "y", "z"):
            os.symlink(root / name, wide / f"{name}{copy}")
    open_index(wide)
    code = (
        "import time, json; a = time.perf_counter();"
        "from data.dataset import BattleDataset, DataConfig; from data.tokenizer import Tokenizer;"
        "from data.sampler import BatchConfig, Plan, pack_shape; b = time.perf_counter();"
        f"d = BattleDataset(DataConfig(path={str(wide)!r}), Tokenizer.load()); c = time.perf_counter();"
        "s = pack_shape(BatchConfig(turns=2816), 128, 41.0);"
        "next(Plan(s, seed=0, n=len(d), keys=d.keys).packs()); e = time.perf_counter();"
        "print(json.dumps([len(d), b - a, c - b, e - c]))"
    )
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT)) for _ in range(REPEATS)]
    rows, imports, warm, first = (statistics.median(column) for column in zip(*runs, strict=True))
    lengths = np.random.default_rng(0).integers(10, 90, int(rows))
    plan = Plan(pack_shape(BatchConfig(turns=2816), 128, 41.0), seed=0, n=int(rows), lengths=lengths)
    started = time.perf_counter()
    stream = plan.packs()
    next(stream)
    first_planned = time.perf_counter() - started
    started = time.perf_counter()
    windows = sum(len(pack) for pack in islice(stream, 500))
    per_window = (time.perf_counter() - started) / windows
    memory = worker_memory(wide)
    return {
        "files": options.files,
        "scan_us_per_file": round(scan / options.files * 1e6, 2),
        "scan_processes": os.cpu_count(),
        "warm_rows": int(rows),
        "imports_s": round(imports, 2),
        "warm_start_s": round(warm, 2),
        "first_pack_unplanned_s": round(first, 2),
        "first_pack_planned_s": round(first_planned, 2),
        "plan_us_per_window": round(per_window * 1e6, 2),
        **memory,
    }


def settle() -> None:
    """Wait until new folders' mtimes are old enough for an index to be trusted."""
    time.sleep(2.5)


def worker_memory(root: Path) -> dict:
    """What a data set of four million rows adds to each of 12 forked workers, as proportional set size."""
    before = forked_pss(None)
    data = BattleDataset(DataConfig(path=str(root)), Tokenizer.load())
    after = forked_pss(data)
    return {"workers": WORKERS_OF_A_NODE, "added_pss_mb_per_worker": round((after - before) / 2**20, 1)}


def forked_pss(data: BattleDataset | None) -> float:
    """Mean proportional set size of 12 processes forked now, each having looked 20,000 rows up at random."""
    context = multiprocessing.get_context("fork")
    ready, go = context.Queue(), context.Barrier(WORKERS_OF_A_NODE)

    def work(seed: int) -> None:
        if data is not None:
            for i in np.random.default_rng(seed).integers(0, len(data), 20_000).tolist():
                data.path(i)
        go.wait()
        ready.put(own_pss())
        go.wait()

    processes = [context.Process(target=work, args=(seed,)) for seed in range(WORKERS_OF_A_NODE)]
    for process in processes:
        process.start()
    sizes = [ready.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    return statistics.mean(sizes)


def own_pss() -> int:
    """Bytes of this process's proportional set size."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/smaps_rollup gives no Pss")


def bench_raw(options: argparse.Namespace, scratch: Path) -> dict:
    """Raw files to arrays and packs on one core: where the microseconds go."""
    files = sorted(options.battles.glob("*/*.json.lz4"))
    random.Random(0).shuffle(files)
    encoder = Encoder("default", Tokenizer.load())
    blobs = [file.read_bytes() for file in files]
    texts = [unpack(blob, "") for blob in blobs]
    battles = [decode_lean(text, "") for text in texts]
    turns = sum(len(battle.states) for battle in battles)
    stages = {
        "read": each(Path.read_bytes, files),
        "lz4": each(lambda blob: unpack(blob, ""), blobs),
        "JSON": each(lambda text: decode_lean(text, ""), texts),
        "encode": each(lambda battle: encoder.encode(battle.states, battle.actions), battles),
        "files to arrays": each(lambda file: one_file(file, encoder), files),
    }
    figures = {name: round(median_seconds(work, time.process_time) / turns * 1e6, 2) for name, work in stages.items()}
    data = BattleDataset(DataConfig(path=str(options.battles), workers=0), Tokenizer.load())
    to_packs = packs_per_second(data, 0, 40)
    figures["files to packs"] = round(1e6 / to_packs["turns_per_s"], 2)
    per_turn = figures["files to arrays"]
    return {
        "turns": turns,
        "us_per_turn": figures,
        "turns_per_s": round(1e6 / per_turn),
        "times_reference": [round(1e6 / per_turn / rate, 1) for rate in reversed(REFERENCE_TURNS_PER_S)],
        "turns_per_s_into_packs": to_packs["turns_per_s"],
    }


def one_file(file: Path, encoder: Encoder) -> None:
    """The raw path up to arrays."""
    battle = read_lean(file)
    encoder.encode(battle.states, battle.actions)


def packs_per_second(data: BattleDataset, workers: int, packs: int) -> dict:
    """A loader against a consumer that does nothing, after a warm-up of some packs."""
    data.config.workers = workers
    loader = make_loader(data, BatchConfig(accumulate=1), seed=0, max_steps=packs + 8)
    iterator = iter(loader)
    for _ in range(8):
        next(iterator)
    clock = time.perf_counter if workers else time.process_time
    started = clock()
    turns = sum(int(pack["valid"].sum()) for pack in iterator)
    seconds = clock() - started
    return {
        "packs_per_s": round(packs / seconds, 1),
        "turns_per_s": round(turns / seconds),
        "padding_share": round(loader.padding_share, 5),
        "rows": loader.shape.turns,
    }


def bench_cache(options: argparse.Namespace, scratch: Path) -> dict:
    """Prepare a token cache on one core; read packs from it on one core."""
    out = scratch / "cache"
    started = time.process_time()
    manifest = make_cache(CacheJob(str(options.battles), str(out)), processes=1, progress=False)
    seconds = time.process_time() - started
    data = BattleDataset(DataConfig(path=str(out), workers=0), Tokenizer.load())
    loader = make_loader(data, BatchConfig(accumulate=1), seed=0, max_steps=300)
    plans = list(islice(loader.plan.packs(), 300))
    rows = sum(window.length for plan in plans for window in plan)
    build = median_seconds(each(lambda plan: build_pack(data, plan, loader.shape), plans), time.process_time)
    with_planning = packs_per_second(data, 0, 300)
    per_core = manifest["battles"] / seconds
    return {
        "prepare_battles_per_s_per_core": round(per_core),
        "prepare_4M_battles_on_16_cores_minutes": round(4e6 / per_core / 16 / 60, 1),
        "bytes_per_turn": round(manifest["bytes"] / manifest["turns"], 1),
        "turns_per_s_windows_to_packs": round(rows / build),
        "turns_per_s_with_planning": with_planning["turns_per_s"],
        "times_reference": [round(with_planning["turns_per_s"] / rate) for rate in reversed(REFERENCE_TURNS_PER_S)],
        "padding_share": with_planning["padding_share"],
    }


def bench_loader(options: argparse.Namespace, scratch: Path) -> dict:
    """Two workers against a consumer that does nothing, and a tiny model's wait for data."""
    out = scratch / "loader cache"
    make_cache(CacheJob(str(options.battles), str(out)), processes=1, progress=False)
    figures = {}
    for name, path, packs in (("raw", options.battles, 120), ("cache", out, 600)):
        data = BattleDataset(DataConfig(path=str(path)), Tokenizer.load())
        figures[name] = packs_per_second(data, 2, packs)
    figures["tiny_model_wait_share"] = wait_share(options.battles, scratch)
    return figures


def wait_share(battles: Path, scratch: Path) -> float:
    """Share of a tiny model's training time on CPU spent waiting for data: the trainer's own figure."""
    output = scratch / "run"
    settings = [
        f"output={output}", f"data.path={battles}", "data.workers=1", "max_steps=48", "log.every=8", "eval.every=0",
        "checkpoint.every=1000",
    ]  # fmt: skip
    command = [sys.executable, "-m", "trainer.train", "--config", "launch/runs/quickstart.yaml", *settings]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=900)
    with open(output / "training_log.csv", newline="", encoding="utf-8") as file:
        rows = [float(row["data/wait_share"]) for row in csv.DictReader(file) if row.get("data/wait_share")]
    # The first row holds the workers' start.
    return round(statistics.median(rows[1:]), 4)


def bench_exactly_once(options: argparse.Namespace, scratch: Path) -> dict:
    """An epoch's windows over 1, 2, 3 processes × 0, 1, 3 workers, stopped half way and resumed on another number."""
    checked = {}
    config = DataConfig(path=str(options.battles), formats=["gen1ou"], heldout_share=0.0)
    total = 24
    for world in (1, 2, 3):
        for workers in (0, 1, 3):
            config.workers = workers
            data = BattleDataset(config, Tokenizer.load())
            batch = BatchConfig(battles=16, accumulate=1)
            plan = make_loader(data, batch, seed=7, max_steps=1).plan
            planned = list(islice(plan.packs(), total))
            other = {1: 3, 2: 1, 3: 2}[world]
            half = total // 2
            past = make_loader(data, batch, seed=7, max_steps=1).drawn(half)
            runs = [(rank, world, []) for rank in range(world)] + [(rank, other, past) for rank in range(other)]
            got: Counter = Counter()
            equal = True
            for rank, count, past in runs:
                steps = half // count
                loader = make_loader(data, batch, seed=7, rank=rank, world=count, past=past, max_steps=steps)
                for step, pack in enumerate(loader):
                    place = bool(past) * half + step * count + rank
                    got[place] += 1
                    rows = [tuple(row) for row in pack["windows"].tolist() if row[0] >= 0]
                    equal &= rows == [(w.battle, w.start, w.length) for w in planned[place]]
            epoch = Counter(zip(*(part.tolist() for part in plan.epoch_windows(0)), strict=True))
            seen = Counter((w.battle, w.start, w.length) for pack in planned for w in pack if w.epoch == 0)
            checked[f"{world} processes, {workers} workers, then {other}"] = {
                "windows_of_the_epoch": len(epoch),
                "each_once": seen == epoch and max(epoch.values()) == 1,
                "each_pack_once_and_as_planned": equal and got == Counter(range(total)),
            }
    return checked


PARTS: dict[str, Callable[[argparse.Namespace, Path], dict]] = {
    "index": bench_index,
    "raw": bench_raw,
    "cache": bench_cache,
    "loader": bench_loader,
    "exactly_once": bench_exactly_once,
}


def table(record: dict) -> str:
    """The record as a Markdown table, with the targets beside."""
    low, high = REFERENCE_TURNS_PER_S
    results = record["results"]
    lines = ["# Data room, measured", "", f"`{record['command']}`, commit {record['commit']}, {record['date']},"]
    lines.append(
        f"{record['hardware']} (load {results['load_average_at_start']} at the start); one core's work in CPU time. "
        f"Reference loader: {low:,}–{high:,} turns/s on one core.\n"
    )
    lines += ["| what | measured | target |", "| --- | --- | --- |"]
    index = results["index"]
    lines += [
        f"| scan, µs a file ({index['files']:,} files, {index['scan_processes']} processes) | "
        f"{index['scan_us_per_file']} | < 6 |",
        f"| warm start of {index['warm_rows']:,} rows, s | {index['warm_start_s']} | < 2 |",
        f"| added memory a worker (12 workers, PSS), MB | {index['added_pss_mb_per_worker']} | < 200 |",
        f"| first pack after that, lengths unknown / known, s | {index['first_pack_unplanned_s']} / "
        f"{index['first_pack_planned_s']} | |",
        f"| planning, µs a window | {index['plan_us_per_window']} | |",
    ]
    raw = results["raw"]
    parts = ", ".join(f"{name} {value}" for name, value in raw["us_per_turn"].items())
    lines += [
        f"| raw path, one core, turns/s | {raw['turns_per_s']:,} ({raw['times_reference'][0]}–"
        f"{raw['times_reference'][1]}× the reference) | 5× |",
        f"| µs a turn | {parts} | 45 |",
    ]
    cache = results["cache"]
    lines += [
        f"| token cache, one core, turns/s into packs | {cache['turns_per_s_with_planning']:,} "
        f"({cache['times_reference'][0]}–{cache['times_reference'][1]}× the reference) | 100× |",
        f"| padding | {cache['padding_share']:.3%} | < 2% |",
        f"| bytes a turn | {cache['bytes_per_turn']} | < 350 |",
        f"| preparing, battles/s a core | {cache['prepare_battles_per_s_per_core']:,} (4M on 16 cores: "
        f"{cache['prepare_4M_battles_on_16_cores_minutes']} min) | |",
    ]
    loader = results["loader"]
    lines += [
        f"| 2 workers, packs/s, raw / cache | {loader['raw']['packs_per_s']} / {loader['cache']['packs_per_s']} "
        f"(of {loader['raw']['rows']} rows) | |",
        f"| tiny model on CPU, share of time waiting for data | {loader['tiny_model_wait_share']:.2%} | < 2% |",
    ]
    checked = results["exactly_once"]
    sound = sum(part["each_once"] and part["each_pack_once_and_as_planned"] for part in checked.values())
    lines.append(
        "| exactly once: worlds × workers, stopped and resumed on another world | "
        f"{sound} of {len(checked)} sound | all |"
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
