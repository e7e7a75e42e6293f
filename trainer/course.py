"""A run's way through its data: how many steps there are, each step's packs, and the place that a checkpoint notes."""

import logging
import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from data.dataset import BattleDataset
from data.loader import make_loader, shape_for
from data.sampler import Drawn
from trainer.config import RunConfig

log = logging.getLogger(__name__)
WORKER_RESTARTS = 3  # of a loader whose worker process was killed, at one step
LOADERS_WORDS = ("DataLoader worker", "DataLoader timed out")  # of torch, where a worker or its pack is lost


class Course:
    """The way of one process of `world`.

    Attributes:
        total: optimizer steps of the run: `epochs`, or `max_steps` where that comes first.
        shape: sizes of its packs.
    """

    def __init__(self, dataset: BattleDataset, config: RunConfig, rank: int, world: int):
        """config: as scaled to the world. Raises ValueError where nothing ends the run."""
        self.dataset, self.config, self.rank, self.world = dataset, config, rank, world
        self.shape = shape_for(dataset, config.batch)
        # Rows (files, where packs aren't planned from lengths) of a step, and of an epoch.
        self.planned = dataset.lengths is not None and config.batch.plan != "battles"
        self.step_rows = (self.shape.turns if self.planned else config.batch.battles) * config.batch.accumulate * world
        self.epoch_rows = self._epoch_rows()
        self.said_dropped = False
        self.begun, self.rows = 0, 0.0  # the step that it was restored at, and the rows trained on by then
        self.total = self._total()

    def _epoch_rows(self) -> float:
        data, rates = self.dataset, 1.0 if self.dataset.rates is None else self.dataset.rates
        if not self.planned:
            return float((np.ones(len(data)) * rates).sum())
        decisions = np.maximum(data.lengths.astype("int64") - 1, 0)  # none where it was rejected
        windows = -(-decisions // (self.config.data.max_turns - 1))
        return float(((decisions + windows) * rates).sum())

    def _total(self) -> int:
        """What is done counts by its rows: in a world of another size the steps were of others."""
        config, by_epochs = self.config, None
        if config.epochs is not None:
            left = (config.epochs * self.epoch_rows - self.rows) / self.step_rows
            by_epochs = self.begun + max(0, math.ceil(left - 1e-6))
        known = [n for n in (by_epochs, config.max_steps) if n is not None]
        if not known:
            raise ValueError("epochs and max_steps are both null: give one, so that the run ends")
        return min(known)

    def record(self, step: int) -> dict[str, Any]:
        """What a checkpoint of `step` notes, as JSON."""
        rows = self.rows + (step - self.begun) * self.step_rows
        return {"drawn": self.drawn(step), "rows": rows, "epoch_rows": self.epoch_rows, "planned": self.planned}

    def restore(self, run: dict[str, Any], drawn: Sequence[Drawn] | None = None) -> None:
        """Go on from a checkpoint's record, behind what it had drawn from the data, or behind `drawn`.

        An earlier version counted in steps alone.
        """
        step = run["step"]
        self.begun, self.rows = step, run.get("rows", step * self.step_rows)
        if run.get("planned", self.planned) != self.planned:
            # Rows of turns are gone on from by rows of files, or the other way: as many epochs are done.
            self.rows *= self.epoch_rows / run["epoch_rows"]
        self.total = self._total()
        if drawn is None:
            noted = run.get("drawn")
            drawn = self._as_now(step + run.get("data_offset", 0)) if noted is None else [Drawn(*d) for d in noted]
        self.open(step, drawn)

    def open(self, step: int, past: Sequence[Drawn] | None = None) -> None:
        """Packs for the steps from `step` on, behind those of `past`; None: behind as many steps like its own."""
        self.opened = step
        self.loader = make_loader(
            self.dataset, self.config.batch, seed=self.config.seed, rank=self.rank, world=self.world,
            past=self._as_now(step) if past is None else past, max_steps=max(0, self.total - step), shape=self.shape,
        )  # fmt: skip
        self.packs = iter(self.loader)

    def drawn(self, step: int) -> list[Drawn]:
        """What all processes have drawn from the data when `step` steps are done."""
        return self.loader.drawn(step - self.opened)

    def _as_now(self, steps: int) -> list[Drawn]:
        batch = self.config.batch
        packs = steps * batch.accumulate * self.world
        return [Drawn(packs, self.shape.turns, self.shape.segments, batch.battles)]

    def say_what_is_dropped(self) -> None:
        """Once, where over a twentieth of the windows found no room in their packs, whose lengths weren't known."""
        loader, drawn = self.loader, self.config.batch.battles
        if self.planned or self.said_dropped or loader.dropped_windows <= 0.05 * loader.packs * drawn:
            return
        self.said_dropped = True
        log.warning(
            "%d of %d windows did not fit their packs of %d turns and are not trained on: give more batch.turns, or "
            "let packs be planned (`python -m data.prepare index --turns %s`, batch.plan=auto)",
            loader.dropped_windows, loader.packs * drawn, self.shape.turns, self.dataset.name,
        )  # fmt: skip

    def micro(self, step: int) -> list[dict]:
        """The step's micro-batches. A loader's worker that was killed, or lost a pack, costs a restart of the loader,
        not the run."""
        for _ in range(WORKER_RESTARTS):
            try:
                return list(islice(self.packs, self.config.batch.accumulate))
            except (RuntimeError, ConnectionError, EOFError) as error:
                # torch names a worker that is dead; of one that dies just now, the line to it breaks first.
                if isinstance(error, RuntimeError) and not str(error).startswith(LOADERS_WORDS):
                    raise
                log.warning("step %d: a worker is lost: %s; the loader starts again at this step", step, error)
                self.open(step, self.drawn(step))
        return list(islice(self.packs, self.config.batch.accumulate))
