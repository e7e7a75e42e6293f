"""Recorded decisions → scores: does the policy predict them, and do the values predict outcomes?

Counted are recorded decisions with two or more legal choices, by format and by kind, against two baselines: uniform
over the legal actions, and the legal slot most frequent in training. Intervals are 95%, bootstrapped by battle (both
views of a battle are one unit). Values are judged over battles that have a result.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from model.modeling_turnwise import TurnwiseForOfflineRL
from trainer.wording import values_told, with_interval

log = logging.getLogger(__name__)
KINDS = ("move", "switch", "forced switch", "tera")
RESAMPLES = 1000
MOST_DRAWN = 1 << 20  # at a time: 8 MB


@dataclass
class Decisions:
    """One row per decision of the packs read, as NumPy columns; gathered by `collect`.

    nll, rank (of the recorded action, 0 is best), legal (bool [n,A]), action, kind (index of KINDS), row (place in the
    dataset), turn (of its battle, 0 the first), cloned (bool), outcome (1, 0, −1 without result), values fp32 [n,G]
    (V per γ, unscaled), advantages fp32 [n,G] (Q of the recorded action − V, unscaled).
    """

    columns: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, **arrays: np.ndarray) -> None:
        for name, array in arrays.items():
            self.columns.setdefault(name, []).append(array)

    def table(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate(parts) for name, parts in self.columns.items()}


@torch.inference_mode()
def collect(network: TurnwiseForOfflineRL, packs: Iterable[dict], gamma: float | None = None) -> dict[str, np.ndarray]:
    """Run the network over packs and return the columns of `Decisions`, for every recorded decision.

    Rows with fewer than two legal choices are kept (`n_legal` says so): values are judged on all of them.
    """
    index = network.config.gamma_index(gamma)
    device = network.device
    was_training = network.training
    network.eval()
    rows = Decisions()
    for cpu_pack in packs:
        pack = {key: value.to(device) for key, value in cpu_pack.items()}
        hidden, entities = network.features(pack)
        logits = network.policy_logits(hidden, entities, pack["legal"])
        q = network.expected_values(network.critics(hidden, entities)).mean(2) / network.config.reward_scale
        values = (logits.softmax(-1) * q).sum(-1)
        q_taken = q.gather(-1, pack["action"].clamp_min(0).view(-1, 1, 1).expand(-1, q.shape[1], 1)).squeeze(-1)
        log_probs = logits[:, index].double().log_softmax(-1)
        taken = log_probs.gather(-1, pack["action"].unsqueeze(-1)).squeeze(-1)
        kept = (pack["action_known"] & pack["decision"]).cpu().numpy()
        action = cpu_pack["action"].numpy()
        kind = np.where(cpu_pack["forced"].numpy(), 2, np.where(action >= 9, 3, np.where(action >= 4, 1, 0)))
        windows = cpu_pack["windows"].numpy()[np.minimum(cpu_pack["segment"].numpy(), len(cpu_pack["windows"]) - 1)]
        rows.add(
            nll=-taken.cpu().numpy()[kept],
            rank=rank_of(log_probs.cpu().numpy()[kept], action[kept]),
            legal=cpu_pack["legal"].numpy()[kept],
            action=action[kept],
            kind=kind[kept],
            row=windows[kept, 0],
            turn=windows[kept, 1] + cpu_pack["position"].numpy()[kept],
            cloned=cpu_pack["cloned"].numpy()[kept],
            outcome=cpu_pack["outcome"].numpy()[kept],
            values=values.float().cpu().numpy()[kept],
            advantages=(q_taken - values).float().cpu().numpy()[kept],
        )
    network.train(was_training)
    if not rows.columns:
        raise ValueError("no battle to evaluate on: the split is empty; give more data or a larger data.heldout_share")
    return rows.table()


def rank_of(scores: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Place of the action taken among all by their scores [n, A], 0 the first, int64 [n]. Among equal ones the lower
    slot comes first, as argmax has it: a policy that tells nothing apart is right no more often than by chance."""
    taken = scores[np.arange(len(scores)), action][:, None]
    before = np.arange(scores.shape[1]) < action[:, None]
    return ((scores > taken) | ((scores == taken) & before)).sum(1)


def action_frequency(decisions: dict[str, np.ndarray]) -> np.ndarray:
    """How often each action slot was taken where the policy clones it, as it is judged: fp64 [A], with one added to
    each so that none is impossible."""
    counts = np.bincount(decisions["action"][decisions["cloned"]], minlength=decisions["legal"].shape[1]).astype(
        np.float64
    )
    return (counts + 1) / (counts + 1).sum()


def fit_calibration(decisions: dict[str, np.ndarray], gammas: Sequence[float]) -> dict[str, dict[str, float]]:
    """Per γ the logistic fit of outcome on value (Platt 1999): win chance = 1/(1+exp(−(slope·V + intercept)))."""
    from sklearn.linear_model import LogisticRegression  # here: it takes seconds to import, and few processes fit

    known = decisions["outcome"] >= 0
    outcome = decisions["outcome"][known]
    fitted = {}
    for g, gamma in enumerate(gammas):
        if len(np.unique(outcome)) < 2:
            continue
        values = decisions["values"][known, g : g + 1].astype(np.float64)
        spread = values.std() or 1.0
        fit = LogisticRegression(C=1e6).fit(values / spread, outcome)
        fitted[str(gamma)] = {"slope": float(fit.coef_[0, 0] / spread), "intercept": float(fit.intercept_[0])}
    return fitted


def calibrate(network: TurnwiseForOfflineRL, packs: Iterable[dict]) -> dict:
    """What evaluation needs of training battles: value calibration per γ, and the slots' frequencies. JSON-able."""
    decisions = collect(network, packs)
    return {
        "gammas": fit_calibration(decisions, network.config.gammas),
        "action_frequency": action_frequency(decisions).tolist(),
        "training_decisions": len(decisions["action"]),
    }


def policy_rows(decisions: dict[str, np.ndarray], frequency: np.ndarray, battles: np.ndarray, groups: dict) -> list:
    """Accuracy and likelihood of cloned battles' decisions per group, with baselines and 95% intervals.

    battles: int [n], unit of the bootstrap. groups: name → bool [n]. Groups without a decision are left out.
    """
    legal = decisions["legal"]
    n_legal = legal.sum(1)
    choice = (n_legal >= 2) & decisions["cloned"]
    taken = np.arange(len(legal)), decisions["action"]
    weights = legal * frequency[: legal.shape[1]]
    frequent = weights / np.maximum(weights.sum(1, keepdims=True), 1e-12)
    measures = {
        "top1": decisions["rank"] == 0,
        "top3": decisions["rank"] < 3,
        "nll": decisions["nll"],
        "uniform_top1": 1 / np.maximum(n_legal, 1),
        "uniform_nll": np.log(np.maximum(n_legal, 1)),
        "frequent_top1": frequent.argmax(1) == decisions["action"],
        "frequent_nll": -np.log(np.maximum(frequent[taken], 1e-12)),
    }
    rows = []
    for name, members in groups.items():
        chosen = members & choice
        if chosen.any():
            units = np.unique(battles[chosen], return_inverse=True)[1]
            row = {"group": name, "decisions": int(chosen.sum()), "battles": int(units.max() + 1)}
            rows.append(row | bootstrap({k: np.asarray(v, np.float64)[chosen] for k, v in measures.items()}, units))
    return rows


def bootstrap(measures: dict[str, np.ndarray], units: np.ndarray) -> dict[str, list[float]]:
    """Mean and 95% percentile interval of each measure, whole units resampled: name → [mean, low, high]."""
    sums = np.stack([np.bincount(units, weights=values) for values in measures.values()], axis=1)
    sizes = np.bincount(units).astype(np.float64)
    generator, means, n = np.random.default_rng(0), [], len(sizes)
    block = max(1, MOST_DRAWN // n)  # all at once, those of 40,000 battles take 2 GB
    for first in range(0, RESAMPLES, block):
        rows = np.arange(min(block, RESAMPLES - first))[:, None]
        drawn = generator.integers(0, n, (len(rows), n))
        times = np.bincount((rows * n + drawn).ravel(), minlength=len(rows) * n).reshape(-1, n)
        means.append(times @ sums / (times @ sizes)[:, None])
    means = np.concatenate(means)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    centre = sums.sum(0) / sizes.sum()
    return {name: [float(m), float(a), float(b)] for name, m, a, b in zip(measures, centre, low, high, strict=True)}


def area(values: np.ndarray, won: np.ndarray, units: np.ndarray) -> list[float]:
    """Area under the ROC curve of `values` fp64 [n] telling who `won` (bool [n], both are there), and its 95% interval
    over whole units (int [n]): [area, low, high].

    By the infinitesimal jackknife (Efron 1982): how far the area moves as a unit gets more weight. Resampled units
    would do as well, and would take minutes over millions of decisions.
    """
    wins, losses = np.sort(values[won]), np.sort(values[~won])

    def below(sorted_values: np.ndarray, than: np.ndarray) -> np.ndarray:  # equal ones count half
        return (np.searchsorted(sorted_values, than, "left") + np.searchsorted(sorted_values, than, "right")) / 2

    n, sides = int(units.max()) + 1, (units[won], units[~won])
    told = (below(losses, values[won]), len(wins) - below(wins, values[~won]))  # pairs told right, of each decision
    pairs = len(wins) * len(losses)
    found = told[0].sum() / pairs
    of_unit = sum(np.bincount(side, part, n) for side, part in zip(sides, told, strict=True)) / pairs
    influence = of_unit - found * sum(np.bincount(side, minlength=n) / len(side) for side in sides)
    error = 1.96 * np.sqrt((influence**2).sum() * n / max(1, n - 1))
    return [float(found), float(max(0.0, found - error)), float(min(1.0, found + error))]


def value_rows(decisions: dict[str, np.ndarray], gammas: Sequence[float], fitted: dict, battles: np.ndarray) -> list:
    """Per γ: area under the ROC curve of V against the outcome; Brier score and deciles of the calibrated chance.

    battles: int [n], unit of the intervals; `auc95` and `brier95` are the 95% intervals, and `brier_of_share` is the
    score of always telling the share of wins, which a win chance that is of use stays below.
    """
    known = decisions["outcome"] >= 0
    outcome = decisions["outcome"][known]
    if len(np.unique(outcome)) < 2:
        return []
    units = np.unique(battles[known], return_inverse=True)[1]
    rows = []
    for g, gamma in enumerate(gammas):
        values = decisions["values"][known, g].astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError(f"V at γ = {gamma} is not finite: the critics are spoilt; take an earlier checkpoint")
        row = {"gamma": gamma, "decisions": len(values), "battles": int(units.max() + 1)}
        row["auc"], *row["auc95"] = area(values, outcome == 1, units)
        fit = fitted.get(str(gamma))
        if fit is not None:
            chance = 1 / (1 + np.exp(-(fit["slope"] * values + fit["intercept"])))
            row["brier"], *row["brier95"] = bootstrap({"brier": (chance - outcome) ** 2}, units)["brier"]
            row["brier_of_share"] = float(outcome.mean() * (1 - outcome.mean()))
            row["deciles"] = [
                [float(chance[part].mean()), float(outcome[part].mean()), len(part)]
                for part in np.array_split(np.argsort(chance), 10)
                if len(part)
            ]
        rows.append(row)
    return rows


def advantage_rows(decisions: dict[str, np.ndarray], gammas: Sequence[float]) -> list[dict]:
    """Per γ a histogram of the recorded actions' advantages over decisions with a choice: edges [41], counts [40], the
    outermost percent of either side laid into the outermost bins; and the share above 0."""
    choice = decisions["legal"].sum(1) >= 2
    if not choice.any():
        return []
    rows = []
    for g, gamma in enumerate(gammas):
        values = decisions["advantages"][choice, g].astype(np.float64)
        low, high = np.percentile(values, [1, 99])
        edges = np.linspace(low, high, 41) if low < high else np.linspace(low - 0.5, low + 0.5, 41)
        counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
        rows.append(
            {
                "gamma": gamma, "above_0": float((values > 0).mean()), "edges": edges.round(5).tolist(),
                "counts": counts.tolist(),
            }
        )  # fmt: skip
    return rows


def grouped(decisions: dict[str, np.ndarray], about: dict[int, dict]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Groups of decisions, name → bool [n], and the battle of each, int [n] (both views of one are one battle).

    about: as `report` takes it.
    """
    known_rows, inverse = np.unique(decisions["row"], return_inverse=True)
    described = [about[int(row)] for row in known_rows]
    formats = np.array([d["format"] for d in described])[inverse]
    ids = {key: i for i, key in enumerate(sorted({(d["format"], d["battle_id"]) for d in described}))}
    battles = np.array([ids[d["format"], d["battle_id"]] for d in described])[inverse]
    everything = np.ones(len(inverse), dtype=bool)
    groups = {"all": everything}
    groups |= {f"format: {name}": formats == name for name in sorted(set(formats))}
    groups |= {f"kind: {name}": decisions["kind"] == i for i, name in enumerate(KINDS)}
    # Files of different makers stand in one folder with different battle ids: "metamon-gen1ou-12", "battle-gen1ou-7".
    makers = np.array([d["battle_id"].split(d["format"])[0].strip("-") or "(none)" for d in described])[inverse]
    if len(set(makers)) > 1:
        groups |= {f"id prefix: {name}": makers == name for name in sorted(set(makers))}
    for text, wanted in (("team seen in training", True), ("team unseen", False)):
        groups[text] = np.array([d.get("seen_team") is wanted for d in described])[inverse]
    return groups, battles


def report(decisions: dict, calibration: dict, gammas: Sequence[float], gamma: float, about: dict[str, dict]) -> dict:
    """The whole evaluation as JSON.

    about: per index row what is known of it: {row: {"format", "battle_id", "seen_team" or None}}.
    Raises ValueError where no decision of a cloned battle has two legal choices.
    """
    if not ((decisions["legal"].sum(1) >= 2) & decisions["cloned"]).any():
        raise ValueError(
            "no turn of the battles to judge has two actions to choose from and a recorded one: give others"
        )
    groups, battles = grouped(decisions, about)
    frequency = np.array(calibration["action_frequency"])
    return {
        "gamma": gamma,
        "policy": policy_rows(decisions, frequency, battles, groups),
        "values": value_rows(decisions, gammas, calibration["gammas"], battles),
        "advantages": advantage_rows(decisions, gammas),
    }


def as_text(result: dict) -> str:
    """The evaluation as an aligned table."""
    lines = [f"policy at γ = {result['gamma']}, decisions with two or more legal choices, 95% intervals by battle", ""]
    lines.append(
        f"{'':32}{'decisions':>9}{'top-1 %':>21}{'top-3 %':>9}{'NLL':>24}"
        f"{'uniform %':>11}{'frequent slot %':>21}{'its NLL':>9}"
    )
    for row in result["policy"]:
        lines.append(
            f"{row['group'][:31]:32}{row['decisions']:>9}"
            f"{with_interval(row, 'top1', 100, '4.1f'):>21}{100 * row['top3'][0]:>9.1f}"
            f"{with_interval(row, 'nll', 1, '5.3f'):>24}{100 * row['uniform_top1'][0]:>11.1f}"
            f"{with_interval(row, 'frequent_top1', 100, '4.1f'):>21}{row['frequent_nll'][0]:>9.3f}"
        )
    if judged := result.get("judged"):
        rule = f"held out by rule: {judged['heldout']}" if judged["heldout"] else "of all there"
        lines.append(f"judged: {judged['battles']:,} of {judged['of']:,} battles, {rule}")
    for row in result["values"]:
        of = f" of {row['battles']:,} battles" if row.get("battles", 1) > 1 else ""  # older evaluations do not say
        lines.append(f"value at γ = {row['gamma']}: {values_told(row)} over {row['decisions']} decisions{of}")
    return "\n".join(lines)
