"""Faults planted in a run's data: `plant_in` for tests in one process, and `trainer.train` with them for launched ones.

    python -m tests.trainer.planted [settings of trainer.train …]

TURNWISE_PLANTED="2 3 6" names the places in the data, TURNWISE_PLANTED_RANK the one process that gets them (all where
it is absent), TURNWISE_PLANTED_WHAT what they get: `nan` (where absent), or `stop`, a process that waits for ever.
"""

import os
import signal
import sys
from collections.abc import Callable

import torch

from trainer import course
from trainer.train import main


def plant(real: Callable, is_bad: Callable[[int], bool], name: str = "numbers", value: float = torch.nan) -> Callable:
    """`course.make_loader` whose packs hold nothing but `value` under `name` where `is_bad(position in the data)`."""

    class Planted:
        def __init__(self, inner, start):
            self.inner, self.start = inner, start

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __iter__(self):
            for place, pack in enumerate(self.inner, self.start):
                if is_bad(place):
                    pack[name][:] = value
                yield pack

    return lambda *a, **k: Planted(real(*a, **k), sum(drawn.packs for drawn in k["past"]) // k["world"])


def plant_in(monkeypatch, is_bad: Callable[[int], bool], name: str = "numbers", value: float = torch.nan) -> None:
    """`plant`, for a run in this process."""
    monkeypatch.setattr(course, "make_loader", plant(course.make_loader, is_bad, name, value))


if __name__ == "__main__":
    places = {int(place) for place in os.environ["TURNWISE_PLANTED"].split()}
    if os.environ.get("TURNWISE_PLANTED_RANK", os.environ.get("RANK")) == os.environ.get("RANK"):
        if os.environ.get("TURNWISE_PLANTED_WHAT", "nan") == "stop":
            course.make_loader = plant(course.make_loader, lambda place: place in places and signal.pause())
        else:
            course.make_loader = plant(course.make_loader, places.__contains__)
    sys.exit(main())
