"""What the keys of a configuration may hold, told before anything is read or built."""

from collections.abc import Iterable
from math import inf


def refuse_unless(prefix: str, config, rules: Iterable[tuple[str, bool, str]]) -> None:
    """Raises ValueError naming the first key whose rule does not hold.

    rules: (field of `config`, whether its value will do, what to choose instead). Compare so that NaN fails: `x > 0`.
    """
    for name, holds, mend in rules:
        if not holds:
            raise ValueError(f"{prefix}{name}={getattr(config, name)!r} cannot be: choose {mend}")


def positive(value: float) -> bool:
    """Whether a number is above 0 and finite."""
    return 0 < value < inf


def not_negative(value: float) -> bool:
    """Whether a number is 0 or more and finite."""
    return 0 <= value < inf
