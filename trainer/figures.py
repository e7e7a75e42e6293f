"""Pictures of runs, drawn from what they logged. Every function takes `RunLog`s and returns PNG bytes, or None where no
run has what it shows.

The ground is transparent and text mid-grey, so that a picture reads on light and on dark pages.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from trainer.wording import values_told

COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7", "#ef4444", "#06b6d4", "#eab308", "#ec4899")
INK = "#808892"
DPI = 110
KIND, FORMAT = "kind: ", "format: "


@dataclass
class RunLog:
    """A run as the pictures need it: its name, the log's rows as text, its held-out evaluation, and the discount whose
    policy acts."""

    name: str
    rows: list[dict[str, str]]
    evaluation: dict | None = None
    gamma: float = 0.999

    def series(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values) of the rows that hold a number in this column."""
        pairs = [(float(row["step"]), float(row[column])) for row in self.rows if row.get(column)]
        steps, values = zip(*pairs, strict=True) if pairs else ((), ())
        return np.array(steps), np.array(values)

    def gammas(self, metric: str) -> list[str]:
        """Discounts that a metric is logged for, as text, ascending."""
        columns = self.rows[0] if self.rows else {}
        return sorted((name.split("@")[1] for name in columns if name.startswith(f"{metric}@")), key=float)

    def acting(self) -> str:
        """The discount that acts, as the columns have it."""
        return str(self.gamma)


def training_curve(rows: list[dict[str, str]], gamma: float) -> bytes:
    """One run in one picture, for its card: likelihood in training and held out, and accuracy."""
    run = RunLog("", rows, gamma=gamma)
    return likelihood([run]) or losses([run])


def losses(runs: Sequence[RunLog]) -> bytes | None:
    """Loss by part: of the policy, of the critics, and their sum."""
    parts = (("loss/policy", "policy loss"), ("loss/critic", "critic loss"), ("loss/total", "total loss"))
    return _lines(runs, [(title, [(column, None)]) for column, title in parts])


def likelihood(runs: Sequence[RunLog]) -> bytes | None:
    """Negative log-likelihood and accuracy of the recorded actions, in training (thin) and held out (dots)."""
    if not any(len(run.series("heldout/nll")[0]) for run in runs):
        return None
    figure, axes = _panels(2)
    for run, colour in _coloured(runs):
        gamma = run.acting()
        for axis, metric, held in ((axes[0], "nll", "nll"), (axes[1], "accuracy", "accuracy")):
            scale = 100 if metric == "accuracy" else 1
            steps, values = run.series(f"policy/{metric}@{gamma}")
            axis.plot(steps, scale * values, color=colour, lw=1, alpha=0.55, label=_label(run, "training"))
            steps, values = run.series(f"heldout/{held}")
            axis.plot(steps, scale * values, "o-", color=colour, lw=2, ms=4, label=_label(run, "held out"))
    axes[0].set_title("negative log-likelihood of recorded actions")
    axes[1].set_title("recorded action is the likeliest, %")
    return _png(figure, axes, "step")


def accuracy(runs: Sequence[RunLog]) -> bytes | None:
    """Held-out top-1 by format and by kind of decision, with 95% intervals and the baseline that knows no state."""
    judged = [(run, colour) for run, colour in _coloured(runs) if run.evaluation]
    if not judged:
        return None
    groups = dict.fromkeys(row["group"] for run, _ in judged for row in run.evaluation["policy"])
    names = [name for kind in ("all", FORMAT, KIND) for name in groups if name.startswith(kind)]
    figure = Figure(figsize=(10, 0.7 + len(names) * (0.26 + 0.16 * len(judged))), layout="constrained")
    axis = figure.subplots()
    places, height = np.arange(len(names))[::-1], 0.8 / len(judged)
    for i, (run, colour) in enumerate(judged):
        rows = {row["group"]: row for row in run.evaluation["policy"]}
        at = places + (len(judged) - 1 - 2 * i) * height / 2
        found = [(y, rows[name]) for y, name in zip(at, names, strict=True) if name in rows]
        y = np.array([y for y, _ in found])
        mean, low, high = (100 * np.array([row["top1"][k] for _, row in found]) for k in range(3))
        axis.barh(y, mean, height * 0.86, color=colour, alpha=0.8, label=run.name or None)
        axis.hlines(y, low, high, color=INK, lw=1.6)
        baseline = [100 * row["frequent_top1"][0] for _, row in found]
        axis.plot(baseline, y, "|", color=INK, ms=11, mew=2, label="most frequent slot" if i == 0 else None)
        for place, value, row in zip(y, mean, (row for _, row in found), strict=True):
            inside = value > 24  # beside a bar too short to write in
            x, colour = (1, "white") if inside else (max(value, 100 * row["top1"][2]) + 1, INK)
            text = f"{value:.1f}  ({row['decisions']:,} decisions)"
            axis.text(x, place, text, va="center", color=colour, size=8.5)
    axis.set_yticks(places, [name.removeprefix(FORMAT).removeprefix(KIND) for name in names])
    axis.set_xlim(0, 100)
    axis.set_title("held-out top-1 over decisions with a choice, %")
    return _png(figure, [axis])


def calibration(runs: Sequence[RunLog]) -> bytes | None:
    """Calibrated win chance against the share won, by deciles, for every discount of 0.999 or more."""
    lines = [
        (run, colour, row)
        for run, colour in _coloured(runs)
        for row in (run.evaluation or {}).get("values", [])
        if row["gamma"] >= 0.999 and "deciles" in row
    ]
    if not lines:
        return None
    gammas = sorted({row["gamma"] for _, _, row in lines})
    figure, axes = _panels(len(gammas), height=4.2)
    for axis, gamma in zip(axes, gammas, strict=True):
        axis.plot([0, 100], [0, 100], "--", color=INK, lw=1)
        for run, colour, row in lines:
            if row["gamma"] == gamma:
                said, won, _ = 100 * np.array(row["deciles"]).T
                told = values_told(row).replace(", Brier", "\nBrier")  # in one line a long name would leave the panel
                axis.plot(said, won, "o-", color=colour, lw=2, ms=5, label=_label(run, told))
        axis.set_title(f"win chance said → share won, %, γ = {gamma:g}")
        axis.set_xlim(0, 100)
        axis.set_ylim(0, 100)
    return _png(figure, axes, "win chance said, %")


def filtering(runs: Sequence[RunLog]) -> bytes | None:
    """Share of recorded actions that the filter keeps, and how much better the policy's choice is held to be."""
    panels = []
    for metric, title in (
        ("filter/share_kept", "share of recorded actions kept, %"),
        ("value/policy_minus_data", "V of the policy − Q of the recorded action"),
    ):
        gammas = runs[0].gammas(metric) if len(runs) == 1 else [runs[0].acting()]
        panels.append((title, [(f"{metric}@{gamma}", f"γ = {gamma}") for gamma in gammas]))
    return _lines(runs, panels, percent={"share of recorded actions kept, %"})


def advantages(runs: Sequence[RunLog]) -> bytes | None:
    """Advantages of the recorded actions of held-out battles, a histogram for each discount."""
    rows = [
        (run, colour, row) for run, colour in _coloured(runs) for row in (run.evaluation or {}).get("advantages", [])
    ]
    if not rows:
        return None
    gammas = sorted({row["gamma"] for _, _, row in rows})
    figure, axes = _panels(len(gammas), height=2.9)
    for axis, gamma in zip(axes, gammas, strict=True):
        for run, colour, row in rows:
            if row["gamma"] == gamma:
                edges, counts = np.array(row["edges"]), np.array(row["counts"], dtype=float)
                label = _label(run, f"{100 * row['above_0']:.0f}% above 0")
                axis.stairs(100 * counts / counts.sum(), edges, fill=True, color=colour, alpha=0.45, label=label)
        axis.axvline(0, color=INK, lw=1)
        axis.set_title(f"γ = {gamma:g}")
    axes[0].set_ylabel("% of decisions", color=INK)
    return _png(figure, axes, "advantage of the recorded action")


def throughput(runs: Sequence[RunLog]) -> bytes | None:
    """Battles and turns a second, and where time and room are lost."""
    panels = [
        ("battles a second", [("speed/battles_per_s", None)]),
        ("turns a second", [("speed/turns_per_s", None)]),
        ("lost, %", [("data/wait_share", "waiting for data"), ("data/padding", "padding")]),
    ]
    return _lines(runs, panels, percent={"lost, %"})


def optimization(runs: Sequence[RunLog]) -> bytes | None:
    """Learning rate and gradient norms, by part where they were logged."""
    norms = ["optim/grad_norm"]
    if len(runs) == 1 and runs[0].rows:
        norms += sorted(name for name in runs[0].rows[0] if name.startswith("optim/grad_norm_"))
    labels = [(name, name.removeprefix("optim/grad_norm").strip("_") or "all") for name in norms]
    return _lines(runs, [("learning rate", [("optim/lr", None)]), ("gradient norm", labels)], log={"gradient norm"})


# What a report shows, in its order: file name, heading, what to look for, and the picture.
PICTURES = (
    ("likelihood", "Does it predict the players?",
     "Dots: battles it never saw. Where they turn up while training goes on down, it learns by heart.", likelihood),
    ("losses", "Loss by part", "The critics' loss has its own scale; a jump in either is worth a look.", losses),
    ("accuracy", "Where is it right?",
     "Bars: share of decisions where its likeliest action is the recorded one, with 95% intervals; the mark is what "
     "always naming the most frequent slot would reach.", accuracy),
    ("calibration", "Is its win chance to be believed?",
     "A point on the dashed line is right on average; each is a tenth of the held-out decisions.", calibration),
    ("filter", "What the filter keeps",
     "Near 0% or 100% the critics tell actions apart for nobody. It decides nothing before objective.filter_warmup.",
     filtering),
    ("advantages", "Advantages of recorded actions",
     "On held-out battles, in units of the reward. A spike at 0 is a critic that sees no difference.", advantages),
    ("throughput", "Speed", "Waiting should be near 0: else give the loader more workers, or a token cache.",
     throughput),
    ("optimization", "Learning rate and gradient norm",
     "A part whose norm stands far above the others' drowns them.", optimization),
)  # fmt: skip


def _lines(
    runs: Sequence[RunLog],
    panels: list[tuple[str, list[tuple[str, str | None]]]],
    percent: Iterable[str] = (),
    log: Iterable[str] = (),
) -> bytes | None:
    """Panels of lines over steps: (title, [(column, label)]). One colour a run; one a column where there is one run."""
    figure, axes = _panels(len(panels))
    drawn = 0
    for axis, (title, columns) in zip(axes, panels, strict=True):
        for r, run in enumerate(runs):
            for c, (column, label) in enumerate(columns):
                steps, values = run.series(column)
                drawn += len(steps)
                colour = COLOURS[(c if len(runs) == 1 else r) % len(COLOURS)]
                style = "-" if len(runs) == 1 or c == 0 else "--"
                scale = 100 if title in percent else 1
                axis.plot(steps, scale * values, style, color=colour, lw=1.5, label=_label(run, label))
        if title in log and drawn:
            axis.set_yscale("log")
            axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
        axis.set_title(title)
    return _png(figure, axes, "step") if drawn else None


def _panels(count: int, height: float = 3.1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(10, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, count)))


def _coloured(runs: Sequence[RunLog]) -> list[tuple[RunLog, str]]:
    return [(run, COLOURS[i % len(COLOURS)]) for i, run in enumerate(runs)]


def _label(run: RunLog, text: str | None) -> str | None:
    # To matplotlib a label that begins with _ is none, and what stands between two $ is mathematics.
    name = run.name and run.name.replace("$", r"\$")
    if name and name.startswith("_"):
        name = f" {name}"
    return " · ".join(part for part in (name, text) if part) or None


def _png(figure: Figure, axes: Sequence[Axes], below: str = "") -> bytes:
    for axis in axes:
        axis.tick_params(which="both", colors=INK, labelsize=8.5)
        axis.title.set_color(INK)
        axis.title.set_size(10)
        axis.grid(color=INK, alpha=0.18, lw=0.8)
        axis.set_axisbelow(True)
        axis.set_facecolor("none")
        axis.set_xlabel(below, color=INK, size=8.5)
        for side, spine in axis.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(INK)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=8, frameon=False, labelcolor=INK)
    figure.patch.set_alpha(0)
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=DPI)
    return held.getvalue()
