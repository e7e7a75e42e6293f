"""What parts of the network, or settings of your own, are worth: one agent per arm, the same data, seeds and steps.

    python -m launch.ablate --data CACHE --out DIR [--steps 600] [--lr 3e-4 1e-3 3e-3] [--seeds 0 1] [--battles 100]
        [--set model.preset=small] [--record NAME] [--arm NAME objective.filter=binary objective.filter_warmup=300 …]

`blocks` is the default, `transformer` the Metamon paper's encoder (arXiv 2504.04395); the others leave out the layer in
which entities meet, weigh the critics' loss ten times as much, or leave out previous action, previous reward, or both,
which an imitator can copy instead of looking. `--arm` gives one of your own, which imitates unless it sets a filter.

Arms are compared by the held-out likelihood of the recorded actions, battle by battle, by how well their values tell
who wins, and by win rate against baselines where the data's formats can be played; of several learning rates each arm
is judged by the one that it is likeliest with, of several seeds by their mean. All are judged on the battles that what
`--set` says of the data leaves to hold out. An arm's own settings are laid over those of `--set`. What is trained
already is not trained again, and refused by other settings: those and changed code want another DIR. Writes
`DIR/ablation.json` and its table, with `--record NAME` those of launch/records.
"""

import argparse
import csv
import json
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from battle.rating import wilson
from data.dataset import DataConfig
from launch.record import write_record
from trainer.changes import changed
from trainer.checkpoint import list_checkpoints
from trainer.config import load_config, to_tree
from trainer.heldout import all_packs, open_model
from trainer.scores import RESAMPLES, collect

ROOT = Path(__file__).parents[1]
RUN_FILE = str(ROOT / "launch" / "runs" / "quickstart.yaml")
BASE = "blocks"
ARMS = {
    BASE: [],
    "transformer": ["model.turn_encoder=transformer"],
    "no matchup": ["model.matchup_width=0"],
    "critic weight 1": ["objective.critic_weight=1"],
    "no matchup at critic weight 1": ["model.matchup_width=0", "objective.critic_weight=1"],
    "no previous action": ["model.use_previous_action=false"],
    "no previous reward": ["model.use_previous_reward=false"],
    "neither": ["model.use_previous_action=false", "model.use_previous_reward=false"],
}
SETTINGS = (
    "data.heldout_share=0.05", "batch.battles=32", "optim.warmup_steps=100",
    "objective.filter=imitation", "objective.filter_warmup=0", "objective.filter_floor=0", "objective.unknown_words=0",
    "eval.every=0", "checkpoint.every=200", "log.every=25", "log.progress=false",
)  # fmt: skip
RECORD = "ablation"  # where no name is given
NAME = re.compile(r"[A-Za-z0-9-]+( [A-Za-z0-9-]+)*")
OPPONENTS = ("random", "most_damage", "type_switch")


def settings_of(arm: Sequence[str], options: argparse.Namespace) -> list[str]:
    """Of a run, over its file's; what an arm sets itself comes last, or `--set` could make it the default's twin."""
    run = [f"data.path={options.data.resolve()}", f"max_steps={options.steps}"]
    return [*SETTINGS, *run, *options.set, *arm]


def train(arm: Sequence[str], lr: float, seed: int, folder: Path, options: argparse.Namespace) -> None:
    """Train an arm, given by what it sets, on CPU, or go on with it where it was stopped. Raises SystemExit."""
    settings = settings_of([f"output={folder}", f"seed={seed}", f"optim.lr={lr:g}", *arm], options)
    refuse_other_settings(folder, settings)
    command = [sys.executable, "-m", "trainer.train", "--config", RUN_FILE, *settings]
    folder.mkdir(parents=True, exist_ok=True)
    run_logged(command, folder / "train.log", f"{folder.name}: training")


def run_logged(command: list[str], printed: Path, what: str) -> None:
    """Run a command, all that it says in a file. Raises SystemExit with the last of it where it fails."""
    with open(printed, "w", encoding="utf-8") as file:
        code = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file).returncode
    if code:
        last = printed.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise SystemExit(f"{what} ended with {code}: {' '.join(last)}; all of it is in {printed}")


def refuse_other_settings(folder: Path, settings: list[str]) -> None:
    """A run goes on where its settings change, after a warning that nobody would read here: half of it at another
    learning rate, or on another one's schedule, and compared with arms that were trained by one. Raises SystemExit."""
    if not (saved := list_checkpoints(folder)):
        return
    asked = json.loads((saved[-1] / "run.json").read_text(encoding="utf-8"))["asked"]
    if other := changed(asked, to_tree(load_config(RUN_FILE, settings))):
        told = "; ".join(f"{key}: {change}" for key, change in other.items())
        raise SystemExit(f"{folder}: was trained by other settings ({told}): give another --out")


def judged_on(options: argparse.Namespace) -> DataConfig:
    """The data that all arms are judged on: of all battles, or those alone that `--set` takes for every arm."""
    return load_config(RUN_FILE, settings_of([], options)).data


def heldout_decisions(folder: Path, data: DataConfig) -> dict[str, np.ndarray]:
    """Recorded held-out decisions with a choice, of battles that are cloned, in the data's order: nll fp64 [n], top1
    bool [n], battle text [n]."""
    model = open_model(str(folder), data, whole=False)
    network, dataset = model.network, model.heldout
    decisions = collect(network, all_packs(dataset))
    choice = (decisions["legal"].sum(1) >= 2) & decisions["cloned"]
    names = {row: dataset.info(row)["battle_id"] for row in np.unique(decisions["row"]).tolist()}
    return {
        "nll": decisions["nll"][choice],
        "top1": decisions["rank"][choice] == 0,
        "battle": np.array([names[row] for row in decisions["row"][choice].tolist()]),
        "parameters": np.array(sum(p.numel() for p in network.parameters())),
    }


def over_seeds(runs: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What `heldout_decisions` gives, of several seeds as one: nll and top1 are means fp64 [n], nll_by_seed [runs]."""
    nll = np.stack([run["nll"] for run in runs])
    return {
        **runs[0],
        "nll": nll.mean(0),
        "top1": np.mean([run["top1"] for run in runs], axis=0),
        "nll_by_seed": nll.mean(1),
    }


def excess(arm: np.ndarray, base: np.ndarray, battles: np.ndarray) -> dict[str, float]:
    """Relative excess of the arm's mean over the base's, paired: whole battles resampled, both arms by the same draw.

    Returns mean, and low and high of the 95% percentile interval, all as shares of the base's mean.
    """
    units = np.unique(battles, return_inverse=True)[1]
    sums = np.stack([np.bincount(units, weights=arm - base), np.bincount(units, weights=base)])
    draws = np.random.default_rng(0).integers(0, sums.shape[1], (RESAMPLES, sums.shape[1]))
    apart, whole = sums[:, draws].sum(-1)
    low, high = np.percentile(apart / whole, [2.5, 97.5])
    return {"mean": float(sums[0].sum() / sums[1].sum()), "low": float(low), "high": float(high)}


def speed(folder: Path) -> float:
    """Turns a second, the median over logged steps but the first."""
    with open(folder / "training_log.csv", newline="", encoding="utf-8") as file:
        return statistics.median([float(row["speed/turns_per_s"]) for row in csv.DictReader(file)][1:])


def winner_told(folder: Path) -> float:
    """Area under the curve of telling the winner of held-out decisions' battles by the value at the largest γ."""
    rows = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["values"]
    return max(rows, key=lambda row: row["gamma"])["auc"]


def win_rates(arms: dict[str, list[Path]], options: argparse.Namespace) -> dict[str, list[dict]]:
    """Each arm against each opponent, its seeds and the formats together: battles, win rate and its interval."""
    agents = {f"{arm.replace(' ', '_')}-{seed}": arm for arm in arms for seed in options.seeds}
    folders = [folder for of_seeds in arms.values() for folder in of_seeds]
    out = options.out / f"{options.record or RECORD}_play.json"
    command = [
        sys.executable, "-m", "battle.evaluate", "--agent", *map("{}={}".format, agents, folders),
        "--against", *OPPONENTS, "--formats", *options.formats, "--battles", str(options.battles), "--json", str(out),
    ]  # fmt: skip
    run_logged(command, out.with_suffix(".log"), "battle.evaluate")
    rows = json.loads(out.read_text(encoding="utf-8"))["results"]
    return {
        arm: [
            together(opponent, [r for r in rows if agents[r["player"]] == arm and r["opponent"] == opponent])
            for opponent in OPPONENTS
        ]
        for arm in arms
    }


def together(opponent: str, rows: list[dict]) -> dict:
    """Rows of `battle.evaluate` against one opponent as one row."""
    battles, points = sum(row["battles"] for row in rows), sum(row["wins"] + row["ties"] / 2 for row in rows)
    rate = points / battles if battles else None
    return {"opponent": opponent, "battles": battles, "win_rate": rate, "interval95": wilson(points, battles)}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; of arms of one's own, `own` is {name: settings}."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.ablate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="token cache or battle files")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the arms' runs")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), help="default: all, or `blocks` alone beside an --arm")
    parser.add_argument("--arm", nargs="+", action="append", default=[], metavar=("NAME", "a.b=c"),
                        help="an arm of your own: its name, and what it sets; may be given again")  # fmt: skip
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3], help="learning rates to try for each arm")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of weights and order, each for all arms")
    parser.add_argument("--formats", nargs="*", default=["gen9randombattle"], help="formats to play in")
    parser.add_argument("--battles", type=int, default=100, help="per arm, seed, opponent and format; 0: no play")
    parser.add_argument("--set", nargs="*", default=[], metavar="a.b=c", help="further settings of every arm")
    parser.add_argument("--record", help="name under launch/records; without, the record is DIR/ablation.json")
    options = parser.parse_args(argv)
    if options.arms is None:
        options.arms = [] if options.arm else list(ARMS)
    options.own = {name: settings for name, *settings in options.arm}
    if len(options.own) < len(options.arm):
        parser.error("--arm: two have one name: give each its own")
    for name, settings in options.own.items():
        if name in ARMS or not settings or not NAME.fullmatch(name):
            parser.error(f"--arm {name}: give a name of its own, of letters, digits, - and blanks, and what it sets")
        if split := [one for one in settings if one.startswith(("data.heldout_share=", "data.split_by="))]:
            parser.error(f"--arm {name}: {split[0]}: arms are judged on the same battles: give it to all by --set")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Train the arms that are missing, compare all, write the record."""
    options = arguments(argv)
    own = options.own
    sets = {arm: ARMS[arm] for arm in ARMS if arm in options.arms or arm == BASE} | own
    names = list(sets)
    out = options.out.resolve()
    tried = {
        arm: {lr: [out / f"{arm.replace(' ', '_')}_{lr:g}_{seed}" for seed in options.seeds] for lr in options.lr}
        for arm in names
    }
    for at, seed in enumerate(options.seeds):
        for arm in names:
            for lr in options.lr:
                train(sets[arm], lr, seed, tried[arm][lr][at], options)
    found = {
        arm: {
            lr: over_seeds([heldout_decisions(folder, judged_on(options)) for folder in runs])
            for lr, runs in rates.items()
        }
        for arm, rates in tried.items()
    }
    best = {arm: min(found[arm], key=lambda lr, arm=arm: found[arm][lr]["nll"].mean()) for arm in names}
    arms = {arm: tried[arm][lr] for arm, lr in best.items()}
    decisions = {arm: found[arm][lr] for arm, lr in best.items()}
    base = decisions[BASE]
    results = {
        arm: {
            "parameters": int(own["parameters"]),
            "decisions": len(own["nll"]),
            "battles": len(np.unique(own["battle"])),
            "lr": best[arm],
            "nll_by_lr": {f"{lr:g}": float(one["nll"].mean()) for lr, one in found[arm].items()},
            "nll": float(own["nll"].mean()),
            "nll_by_seed": own["nll_by_seed"].tolist(),
            "top1": float(own["top1"].mean()),
            "excess_nll": excess(own["nll"], base["nll"], base["battle"]),
            "auc": statistics.mean(winner_told(folder) for folder in arms[arm]),
            "turns_per_s": statistics.median(speed(folder) for folder in arms[arm]),
        }
        for arm, own in decisions.items()
    }
    if options.battles:
        for arm, rows in win_rates(arms, options).items():
            results[arm]["play"] = rows
    ours = " ".join(repr(arm) for arm in names if arm in ARMS)
    chosen = ("" if names == list(ARMS) else f" --arms {ours}") + "".join(
        f" --arm {shlex.join([name, *settings])}" for name, settings in own.items()
    )
    further = f" --set {shlex.join(options.set)}" if options.set else ""
    play = f"--formats {' '.join(options.formats)} --battles {options.battles}" if options.battles else "--battles 0"
    command = (
        f"python -m launch.ablate --data CACHE --out DIR{chosen} --steps {options.steps} "
        f"--seeds {' '.join(map(str, options.seeds))} --lr {' '.join(f'{lr:g}' for lr in options.lr)} "
        f"{play}{further}" + (f" --record {options.record}" if options.record else "")
    )
    # A researcher's own comparison takes no place among those that the docs tell of unless it is given a name there.
    folder = None if options.record else out
    path = write_record(options.record or RECORD, command, results, {"torch": version("torch")}, folder)
    path.with_suffix(".md").write_text(table(command, results), encoding="utf-8")
    print(path.with_suffix(".md").read_text(encoding="utf-8"))
    return 0


def table(command: str, results: dict[str, dict]) -> str:
    """The arms as Markdown."""
    base = results[BASE]
    lines = [
        "# What the parts of the network are worth", "",
        f"`{command}`: imitation, and the quickstart's sizes, but for what an arm or the command sets; the same "
        f"data, steps and seeds ({len(base['nll_by_seed'])}) for each arm; {base['decisions']:,} held-out decisions "
        f"with a choice, of {base['battles']} battles. Excess: how far an arm's negative log-likelihood lies over that "
        f"of `{BASE}`, paired by battle, with the 95% interval over battles: what other seeds would give is not in it. "
        "AUC: of telling who wins by V.", "",
        "| arm | parameters | learning rate (NLL by each) | NLL (by seed) | excess | top-1 | AUC | turns/s | "
        f"{' | '.join(f'wins v. {o}' for o in OPPONENTS)} |",
        "| --- " * (8 + len(OPPONENTS)) + "|",
    ]  # fmt: skip
    for arm, result in results.items():
        apart = result["excess_nll"]
        by_lr = ", ".join(f"{lr}: {nll:.4f}" for lr, nll in result["nll_by_lr"].items())
        by_seed = ", ".join(f"{nll:.4f}" for nll in result["nll_by_seed"])
        cells = [
            arm, f"{result['parameters'] / 1e6:.2f}M", f"{result['lr']:g} ({by_lr})",
            f"{result['nll']:.4f} ({by_seed})",
            f"{apart['mean']:+.2%} [{apart['low']:+.2%}, {apart['high']:+.2%}]" if arm != BASE else "",
            f"{result['top1']:.1%}", f"{result['auc']:.3f}", f"{result['turns_per_s']:.0f}",
        ]  # fmt: skip
        for opponent in OPPONENTS:
            rows = [row for row in result.get("play", []) if row["opponent"] == opponent]
            cells.append(
                ", ".join(f"{r['win_rate']:.0%} [{r['interval95'][0]:.0%}, {r['interval95'][1]:.0%}]" for r in rows)
            )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
