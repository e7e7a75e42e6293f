"""The proof, stage by stage: battles recorded, agents trained on them by five objectives, judged on held-out battles
and in play.

    python -m launch.proof record --out DIR --battles 20000 --searched 100
    python -m launch.proof train  --out DIR [--data DIR] [--seeds 3] [--steps 600] [--jobs 2] [key=value …]
    python -m launch.proof judge  --out DIR [--data DIR]
    python -m launch.proof play   --out DIR --formats gen1ou … --battles 500 [--jobs 2]

Every arm gets the same data, steps and seeds; `judge` and `play` write `launch/records/proof_heldout` and `proof_play`
(`--name` for others). What is done already is not done again.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np

from battle.players import ALL_BASELINES
from battle.rating import wilson
from launch.record import write_record
from trainer.figures import accuracy, calibration, likelihood
from trainer.heldout import evaluate_folder
from trainer.report import read_log

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
FORMATS = ("gen1ou", "gen2ou", "gen3ou", "gen4ou", "gen9ou")
PLAYERS = (
    "planner:weight=8", "simple_heuristics:weight=3", "type_switch:weight=3", "most_damage:weight=1", "boss:weight=1",
)  # fmt: skip
# Who plays beside the searching player, whose battles take seconds where the pool's take tenths.
SEARCHERS = ("search:weight=2", "simple_heuristics:weight=1", "type_switch:weight=1")
STRONGEST = "player in ('planner', 'planner-1', 'planner-2')"
ALL = "all"  # formats together, in a table of play
DRAFTED = 100  # teams of each format, beside the written ones
# Runs this short would end before one-step targets had carried a battle's result back to its turns: longer steps and
# faster targets, for critics of all arms alike.
SETTINGS = (
    "data.heldout_share=0.05", "data.workers=1", "batch.battles=32", "optim.lr=3.0e-3", "optim.warmup_steps=100",
    "objective.n_step=8", "objective.tau=0.02", "objective.filter_floor=0", "objective.unknown_words=0", "eval.every=0",
    "checkpoint.every=200", "log.every=25", "log.progress=false",
)  # fmt: skip
ARMS = {
    "imitation of all": ["objective.filter=imitation", "objective.filter_warmup=0"],
    "imitation of winners": ["objective.filter=winners", "objective.filter_warmup=0"],
    "imitation of the strongest": [
        "objective.filter=imitation", "objective.filter_warmup=0", f'data.filter="{STRONGEST}"',
    ],
    # A filter by critics this young clones next to nothing, hence the floor under every recorded action.
    "binary filter": ["objective.filter=binary", "objective.filter_floor=0.2"],
    "exponential filter": ["objective.filter=exponential", "objective.beta=0.02"],
}  # fmt: skip


class ProofError(RuntimeError):
    """A stage that cannot go on."""


def start(*command: str, log: Path) -> tuple[subprocess.Popen, Path]:
    """Start a module of this project; its words go to `log`."""
    with open(log, "a", encoding="utf-8") as printed:
        return subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, stdout=printed, stderr=printed), log


def ended(process: subprocess.Popen, log: Path) -> None:
    """Wait for it. Raises ProofError with its last words where it failed."""
    if code := process.wait():
        last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"])[-1]
        raise ProofError(f"{process.args[2]} ended with {code}; {log} says: {last}")


def run(*command: str, log: Path) -> None:
    """Run a module of this project to its end; its words go to `log`. Raises ProofError."""
    ended(*start(*command, log=log))


def folder_of(out: Path, arm: str, seed: int | str) -> Path:
    return out / f"{arm.replace(' ', '_')}-{seed}"


def trained(out: Path) -> dict[str, list[Path]]:
    """Arm → folders of its finished runs. Raises SystemExit where there is none."""
    found = {
        arm: [p for p in sorted(out.glob(folder_of(out, arm, "*").name)) if (p / "evaluation.json").exists()]
        for arm in ARMS
    }
    found = {arm: folders for arm, folders in found.items() if folders}
    if not found:
        raise SystemExit(f"{out}: no finished run: python -m launch.proof train --out {out}")
    return found


def record(out: Path, battles: int, searched: int) -> None:
    """Record battles of the pool, in two halves, and of the searching player, all three at a time; make one token cache
    of them. What was begun goes on."""
    halves = -(-battles // 2)
    parts = {
        "pool": (PLAYERS, halves, DRAFTED),
        "search": (SEARCHERS, searched, 0),
        "pool2": (PLAYERS, halves, DRAFTED),
    }
    running = []
    for seed, (part, (players, count, teams)) in enumerate(parts.items()):
        if not count:
            continue
        (out / part).mkdir(parents=True, exist_ok=True)
        running.append(
            start(
                "battle.selfplay", "--players", *players, "--formats", *FORMATS, "--battles", str(count), "--explore",
                "0.02", "--draft", str(teams), "--seed", str(seed), "--out", str(out / part),
                log=out / f"{part}.log",
            )
        )  # fmt: skip
    for process, log in running:
        ended(process, log)
    for part in parts:
        for path in (out / part).glob("*/*.lz4"):
            together = out / "all" / path.parent.name / path.name
            together.parent.mkdir(parents=True, exist_ok=True)
            if not together.exists():
                together.hardlink_to(path)
    run("data.prepare", "cache", "--from", str(out / "all"), "--out", str(out / "cache"), log=out / "cache.log")


def at_a_time(jobs: int, work: Callable[[T], None], items: Iterable[T]) -> None:
    """Do `work` on every item, `jobs` of them at a time. Raises what the first of them to fail raised."""
    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(work, items):
            pass


def train(out: Path, data: Path, seeds: int, steps: int, jobs: int, settings: Sequence[str]) -> None:
    """Train every arm with every seed. Filters come on after half the steps."""

    def one(which: tuple[int, str]) -> None:
        seed, arm = which
        folder = folder_of(out, arm, seed)
        if "strongest" in arm and data != out / "cache":
            return  # people's battles have no strongest player
        limits = [f"data.path={data}", f"output={folder}", f"max_steps={steps}", f"seed={seed}"]
        warmup = [f"objective.filter_warmup={steps // 2}"] if arm.endswith("filter") else []
        command = [
            "trainer.train", "--config", "launch/runs/quickstart.yaml", *SETTINGS, *limits, *ARMS[arm], *warmup,
            *settings,
        ]  # fmt: skip
        asked = folder / "asked.json"
        if (folder / "evaluation.json").exists():
            if asked.exists() and json.loads(asked.read_text(encoding="utf-8")) != command:
                raise ProofError(f"{folder}: is finished by other settings (see asked.json): give another --out")
            return
        folder.mkdir(parents=True, exist_ok=True)
        asked.write_text(json.dumps(command), encoding="utf-8")
        run(*command, log=folder / "train.log")

    at_a_time(jobs, one, product(range(seeds), ARMS))


def is_of(path: Path, data: Path) -> bool:
    """Whether a result is there, and of these data."""
    return path.exists() and json.loads(path.read_text(encoding="utf-8")).get("data") == str(data)


def judge(out: Path, data: Path, name: str) -> None:
    """Held-out accuracy, likelihood and value calibration of every run, and of the trees, on the same decisions."""
    results: dict[str, dict] = {}
    for arm, folders in trained(out).items():
        for folder in folders:
            path = folder / "judged.json"
            if not is_of(path, data):
                result = evaluate_folder(str(folder), str(data))
                path.write_text(json.dumps(result, indent=1), encoding="utf-8")
        judged = [json.loads((folder / "judged.json").read_text(encoding="utf-8")) for folder in folders]
        groups = {row["group"]: {key: [] for key in ("top1", "nll")} for row in judged[0]["policy"]}
        for one in judged:
            for row in one["policy"]:
                for key, values in groups[row["group"]].items():
                    values.append(row[key][0])
        results[arm] = {
            "seeds": len(folders),
            "config": json.loads((folders[0] / "run_config.json").read_text(encoding="utf-8")),
            "groups": groups,
            "auc": [[row["auc"] for row in one["values"]] for one in judged],
            "brier": [[row.get("brier") for row in one["values"]] for one in judged],
            "one_seed": judged[0],
        }
    trees = out / "yardstick.json"
    if not is_of(trees, data):
        run("launch.yardstick", "--data", str(data), "--out", str(trees), log=out / "yardstick.log")
    results["gradient-boosted trees"] = json.loads(trees.read_text(encoding="utf-8"))
    command = f"python -m launch.proof judge --out {out.name}" + (" --data CACHE" if data != out / "cache" else "")
    path = write_record(name, command, results, {"torch": version("torch"), "scikit-learn": version("scikit-learn")})
    path.with_suffix(".md").write_text(heldout_table(command, results), encoding="utf-8")
    draw(name, trained(out))
    print(path.with_suffix(".md").read_text(encoding="utf-8"))


def draw(name: str, arms: dict[str, list[Path]]) -> None:
    """Pictures of the arms' first seeds, docs/images/NAME_*.png: training, held-out accuracy, value calibration."""
    runs = []
    for arm, folders in arms.items():
        judged = json.loads((folders[0] / "judged.json").read_text(encoding="utf-8"))
        runs.append(replace(read_log(folders[0], arm), evaluation=judged))
    for picture in (likelihood, accuracy, calibration):
        if (drawn := picture(runs)) is not None:
            (IMAGES / f"{name}_{picture.__name__}.png").write_bytes(drawn)


def heldout_table(command: str, results: dict[str, dict]) -> str:
    """Mean over seeds, and their range, as Markdown; a line per arm, a column per format."""
    trees = results["gradient-boosted trees"]
    arms = {arm: result for arm, result in results.items() if result is not trees}
    first = next(iter(arms.values()))
    formats = [group.removeprefix("format: ") for group in first["groups"] if group.startswith("format: ")]
    lines = [
        "# Held-out battles", "", f"`{command}`: {trees['decisions']:,} decisions with a choice, of {trees['battles']} "
        "battles that no run saw. Mean over seeds, in brackets the least and the greatest. AUC of V against the result "
        "at γ = 0.999.", "",
        " | ".join(["| objective | steps | seeds | top-1 | NLL", *(f"NLL {name}" for name in formats), "AUC of V |"]),
        "| --- " * (6 + len(formats)) + "|",
    ]  # fmt: skip
    for arm, result in arms.items():
        top1, nll = result["groups"]["all"]["top1"], result["groups"]["all"]["nll"]
        by_format = [f"{np.mean(result['groups'][f'format: {name}']['nll']):.3f}" for name in formats]
        auc = f"{np.mean([row[2] for row in result['auc']]):.3f}" if result["auc"][0] else ""
        cells = [
            arm, str(result["config"]["max_steps"]), str(result["seeds"]),
            f"{np.mean(top1):.1%} [{min(top1):.1%}, {max(top1):.1%}]",
            f"{np.mean(nll):.3f} [{min(nll):.3f}, {max(nll):.3f}]", *by_format, auc,
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    cells = ["gradient-boosted trees", "", "1", f"{trees['top1'][0]:.1%}", f"{trees['nll'][0]:.3f}"]
    lines.append("| " + " | ".join(cells + [""] * (len(formats) + 1)) + " |")
    return "\n".join(lines) + "\n"


def play(out: Path, formats: Sequence[str], battles: int, against: Sequence[str], jobs: int, name: str) -> None:
    """Every arm, its seeds pooled, against every opponent with teams kept for evaluation. The tables hold what earlier
    calls have played too; a format with fewer battles than now asked for is played again."""
    arms = trained(out)
    opponents = [opponent for text in against for opponent in (ALL_BASELINES if text == "all" else [text])]

    def one(which: tuple[str, str, Path]) -> None:
        opponent, arm, folder = which
        path = folder / "play" / f"{opponent}.json"
        share = -(-battles // (2 * len(arms[arm]))) * 2  # pairs with the sides swapped
        held = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else []
        enough = {row["format"] for row in held if row["battles"] + row["void"] >= share}
        if lacking := [battle_format for battle_format in formats if battle_format not in enough]:
            path.parent.mkdir(exist_ok=True)
            played = path.with_suffix(".new")
            run(
                "battle.evaluate", "--agent", f"agent={folder}", "--against", opponent, "--formats", *lacking,
                "--battles", str(share), "--json", str(played), log=folder / "play.log",
            )  # fmt: skip
            report = json.loads(played.read_text(encoding="utf-8"))
            report["results"] += [row for row in held if row["format"] not in lacking]
            played.write_text(json.dumps(report, indent=1), encoding="utf-8")
            played.replace(path)

    at_a_time(
        jobs, one, [(opponent, arm, f) for opponent in opponents for arm, folders in arms.items() for f in folders]
    )
    rows: dict[tuple[str, str, str], dict[Path, list[dict]]] = {}
    for arm, folders in arms.items():
        for folder in folders:
            for path in sorted((folder / "play").glob("*.json")):
                for row in json.loads(path.read_text(encoding="utf-8"))["results"]:
                    for of in (row["format"], ALL) if len(formats) > 1 else (row["format"],):
                        rows.setdefault((arm, of, row["opponent"]), {}).setdefault(folder, []).append(row)
    results = []
    for (arm, battle_format, opponent), of_seeds in rows.items():
        parts = [part for of_seed in of_seeds.values() for part in of_seed]
        score, count = points(parts)
        results.append(
            {"arm": arm, "format": battle_format, "opponent": opponent, "battles": count, "win_rate": score / count,
             "interval95": list(wilson(score, count)), "by_seed": [points(of_seed) for of_seed in of_seeds.values()],
             "void": sum(part["void"] for part in parts),
             "refused_choices": sum(part["refused_choices"] for part in parts)}
        )  # fmt: skip
    command = (
        f"python -m launch.proof play --out {out.name} --formats {' '.join(formats)} --battles {battles} "
        f"--against {' '.join(against)}"
    )
    path = write_record(name, command, results, {"torch": version("torch")})
    path.with_suffix(".md").write_text(play_table(command, results), encoding="utf-8")
    print(path.with_suffix(".md").read_text(encoding="utf-8"))


def points(parts: Sequence[dict]) -> tuple[float, int]:
    """Wins, ties half, and battles of rows of `battle.evaluate`."""
    return sum(part["wins"] + part["ties"] / 2 for part in parts), sum(part["battles"] for part in parts)


def play_table(command: str, results: list[dict]) -> str:
    """Win rates as Markdown: a line per arm and format, a column per opponent, the weakest baseline first."""
    known = {opponent: place for place, opponent in enumerate(ALL_BASELINES)}
    opponents = sorted({row["opponent"] for row in results}, key=lambda opponent: (known.get(opponent, 99), opponent))
    played = {
        name: [r["battles"] for r in results if r["opponent"] == name and r["format"] != ALL] for name in opponents
    }
    counts = ", ".join(f"{sum(battles) // len(battles)} against {name}" for name, battles in played.items())
    lines = [
        "# In play", "", f"`{command}`, and what earlier calls played: win rate, 95% interval (Wilson), ties half; "
        f"sides and teams swapped in pairs, teams never recorded, an arm's seeds pooled; battles a cell: {counts}.", "",
        "| objective | format | " + " | ".join(opponents) + " |", "| --- " * (2 + len(opponents)) + "|",
    ]  # fmt: skip
    found = {(row["arm"], row["format"], row["opponent"]): row for row in results}
    order = sorted(dict.fromkeys((row["arm"], row["format"]) for row in results), key=lambda row: row[1] == ALL)
    for arm, battle_format in order:
        cells = [arm, battle_format]
        for opponent in opponents:
            row = found.get((arm, battle_format, opponent))
            cells.append(
                f"{row['win_rate']:.0%} [{row['interval95'][0]:.0%}, {row['interval95'][1]:.0%}]" if row else ""
            )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.proof", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=["record", "train", "judge", "play"])
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of every training run (train)")
    parser.add_argument("--out", type=Path, required=True, help="folder of battles and runs")
    parser.add_argument("--data", type=Path, help="token cache to train and judge on (default: the recorded one)")
    parser.add_argument("--battles", type=int, default=500, help="to record; or to play, per arm, opponent and format")
    parser.add_argument("--searched", type=int, default=100, help="to record with the searching player (record)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (train, play)")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--against", nargs="+", default=["all"])
    parser.add_argument("--name", default="proof", help="of the records: NAME_heldout, NAME_play")
    options = parser.parse_intermixed_args(argv)
    out = options.out.resolve()
    data = options.data.resolve() if options.data else out / "cache"
    try:
        if options.stage == "record":
            record(out, options.battles, options.searched)
        elif options.stage == "train":
            train(out, data, options.seeds, options.steps, options.jobs, options.settings)
        elif options.stage == "judge":
            judge(out, data, f"{options.name}_heldout")
        else:
            play(out, options.formats, options.battles, options.against, options.jobs, f"{options.name}_play")
    except ProofError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
