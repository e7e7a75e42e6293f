"""Two models on the same recorded decisions: what lies between them is far surer than either's own score, for a battle
that is hard to predict is so for both."""

import numpy as np

from trainer.scores import bootstrap


def common(mine: dict[str, np.ndarray], its: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Places [n] in each of two tables of `scores.collect`, over the same battles in the same order, of the decisions
    that both have: one may cut battles where the other does not, and reads them in another order then."""
    keys = [(table["row"].astype(np.int64) << 32) | table["turn"] for table in (mine, its)]
    _, here, there = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    return here, there


def paired(
    mine: dict[str, np.ndarray], its: dict[str, np.ndarray], groups: dict[str, np.ndarray], battles: np.ndarray
) -> dict:
    """Scores of two tables of `scores.collect` beside each other, over decisions with a choice that both have.

    groups, battles: of `mine`, as `scores.grouped` gives them. JSON-able: `rows`, for each group its decisions and
    battles, `top1` and `nll` as [mine, its] and `top1_apart` and `nll_apart` as [mine − its, low, high], the 95%
    interval with whole battles resampled; `alone`, how many decisions only one of them has.
    """
    here, there = common(mine, its)
    choice = (mine["legal"][here].sum(1) >= 2) & mine["cloned"][here]
    measures = {
        "top1": [(table["rank"][at] == 0).astype(np.float64) for table, at in ((mine, here), (its, there))],
        "nll": [mine["nll"][here], its["nll"][there]],
    }
    rows = []
    for name, members in groups.items():
        chosen = members[here] & choice
        if not chosen.any():
            continue
        units = np.unique(battles[here][chosen], return_inverse=True)[1]
        row = {"group": name, "decisions": int(chosen.sum()), "battles": int(units.max() + 1)}
        row |= {key: [float(values[chosen].mean()) for values in both] for key, both in measures.items()}
        apart = bootstrap({f"{key}_apart": (a - b)[chosen] for key, (a, b) in measures.items()}, units)
        rows.append(row | apart)
    return {"rows": rows, "alone": len(mine["nll"]) + len(its["nll"]) - 2 * len(here)}


def _told(apart: list[float], scale: float, form: str) -> str:
    mean, low, high = (f"{scale * value:{form}}" for value in apart)
    return f"{mean} [{low}, {high}]"


def as_text(result: dict) -> str:
    """What `paired` found, as an aligned table."""
    lines = [
        f"beside {result['checkpoint']}, the same decisions; below 0 in the last column the first is likelier", "",
        f"{'':32}{'decisions':>9}{'top-1 %':>9}{'its':>7}{'apart':>22}{'NLL':>9}{'its':>8}{'apart':>26}",
    ]  # fmt: skip
    for row in result["rows"]:
        lines.append(
            f"{row['group'][:31]:32}{row['decisions']:>9}"
            f"{100 * row['top1'][0]:>9.1f}{100 * row['top1'][1]:>7.1f}{_told(row['top1_apart'], 100, '+.1f'):>22}"
            f"{row['nll'][0]:>9.3f}{row['nll'][1]:>8.3f}{_told(row['nll_apart'], 1, '+.3f'):>26}"
        )
    if result["alone"]:
        lines.append(f"{result['alone']} decisions that only one of them has are left out")
    return "\n".join(lines)
