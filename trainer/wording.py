"""What is told of a run, in words: for reports, cards and plans, with no library that takes seconds to import."""

import math
from typing import Any

# In OUTPUT: what the run is made of (`provenance.about`), and what its code differs from that commit by, if it does.
ABOUT, CODE = "about.json", "code.diff"


def duration(seconds: float) -> str:
    """Seconds → "1h02m", "3m20s", "12s"."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def in_words(system: dict) -> str:
    """ "1 × NVIDIA H200, 16 cores", or the processor's name and its cores."""
    if "gpu" in system:
        return f"{system['processes']} × {system['gpu']}, {system['cores']} CPU cores"
    return f"{system['cores']} cores of {system['processor']}, no GPU"


def with_interval(row: dict, measure: str, scale: float, form: str) -> str:
    """A measure of a row of `scores.policy_rows`, or of `scores.value_rows`, whose older rows have no interval. One
    battle, drawn again and again, tells nothing of others."""
    value = row[measure]
    found = value if isinstance(value, list) else [value, *row.get(f"{measure}95", ())]
    mean, *bounds = (f"{scale * value:{form}}" for value in found)
    return mean if not bounds else f"{mean} " + ("of one battle" if row["battles"] == 1 else f"[{', '.join(bounds)}]")


def values_told(row: dict) -> str:
    """How well a row of `scores.value_rows` tells who wins: "AUC 0.669 [0.589, 0.750], Brier 0.224 [0.201, 0.250]"."""
    return ", ".join(
        f"{word} {with_interval(row, word.lower(), 1, '.3f')}" for word in ("AUC", "Brier") if word.lower() in row
    )


def flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    """A tree of settings as {"a.b": value}."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
