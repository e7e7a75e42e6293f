"""Packs for a training process: a torch DataLoader over planned packs, the same for any number of workers."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .collate import Pack, PackLayout, PackReport, build_pack, fill_buffer
from .dataset import BattleDataset
from .folders import DataError
from .packing import MIN_WINDOW, PackShape, Window
from .sampler import BatchConfig, Drawn, Plan, heldout_plan, pack_shape
from .shared_memory import that_fit

__all__ = ["BatchConfig", "PackLoader", "heldout_packs", "make_loader", "shape_for"]

log = logging.getLogger(__name__)

# Where lengths aren't known, a pack gets this much more rows than its windows need on average.
UNPLANNED_ROOM = 1.15
# Seconds that a worker's pack is waited for. One that it could not hand over (shared memory that another has filled) is
# lost without a word to us. torch looks for dead workers each time that its own wait is over.
LOST_AFTER = 600
LOOK_EVERY = 5


class PackLoader:
    """An iterable of packs for one rank, after those of the past; each `for` starts there again.

    Attributes:
        shape: sizes of every pack.
        planned: packs are planned from known lengths.
        ledger: files read and rejected so far.
        dropped_windows, dropped_turns: what didn't fit, so far (only without known lengths).
        packs, padding_rows: packs given so far, and their padding rows.
    """

    def __init__(
        self,
        dataset: BattleDataset,
        plan: Plan,
        *,
        rank: int,
        world: int,
        past: Sequence[Drawn],
        steps: int,
        accumulate: int,
    ) -> None:
        self.dataset = dataset
        self.plan = plan
        self.shape = plan.shape
        self.planned = plan.planned
        self.ledger = dataset.ledger.copy()
        self.dropped_windows = 0
        self.dropped_turns = 0
        self.packs = 0
        self.padding_rows = 0
        self._rank = rank
        self._world = world
        self._past = list(past)
        self._steps = steps
        self._accumulate = accumulate

    def __len__(self) -> int:
        """Packs of one pass."""
        return self._steps * self._accumulate

    def __iter__(self) -> Iterator[Pack]:
        windows = self.plan.for_rank(self._rank, self._world, self._past)
        config = self.dataset.config
        layout = PackLayout(self.shape, self.dataset.space)
        # By torchrun and accelerate, or by deepspeed's launcher.
        here = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or self._world)
        # Packs of this step and the last stay in shared memory where they are not copied to a pinned place.
        held = 0 if torch.cuda.is_available() else 2 * self._accumulate
        workers, prefetch = that_fit(config.workers, config.prefetch, layout.nbytes, here, held)
        options = {}
        if workers:
            options = {
                "prefetch_factor": prefetch,
                "timeout": LOOK_EVERY,
                "persistent_workers": True,
                "multiprocessing_context": "fork",
            }
        loader = DataLoader(
            _Packs(self.dataset, self.shape),
            batch_size=None,
            sampler=_Sized(itertools.islice(windows, len(self)), len(self)),
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_one_thread,
            # Its own generator: DataLoader would else draw a seed from torch's global one, and change a resumed run.
            generator=torch.Generator().manual_seed(0),
            **options,
        )
        packs = iter(loader)
        if workers and threading.current_thread() is threading.main_thread():
            # torch raises a worker's death from a signal handler, in the midst of whatever the trainer is doing. By
            # default the next pack that is asked for raises it, where a run can act on it.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for made in _waited_for(packs):
            if isinstance(made, DataError):
                raise made
            buffer, report = made
            pack = layout.tensors(buffer)
            self._count(pack, report)
            yield pack

    def drawn(self, steps: int) -> list[Drawn]:
        """What all processes together have taken from the stream once this loader's first `steps` steps are done: the
        past of one that goes on there."""
        now = Drawn(steps * self._world * self._accumulate, self.shape.turns, self.shape.segments, self.plan.battles)
        if self._past and self._past[-1][1:] == now[1:]:
            return [*self._past[:-1], now._replace(packs=self._past[-1].packs + now.packs)]
        return [*self._past, now]

    @property
    def padding_share(self) -> float:
        """Share of rows, in the packs given so far, that are padding."""
        return self.padding_rows / max(1, self.packs * self.shape.turns)

    def _count(self, pack: Pack, report: PackReport) -> None:
        self.packs += 1
        self.padding_rows += self.shape.turns - int(pack["valid"].sum())
        self.dropped_windows += report.dropped_windows
        self.dropped_turns += report.dropped_turns
        self.ledger.add(report.seen if not self.planned else 0, report.rejects)


def _waited_for(packs: Iterator) -> Iterator:
    """The packs, also where one takes longer than torch's own wait; in torch's words RuntimeError past LOST_AFTER."""
    waited = 0
    while True:
        try:
            made = next(packs)
        except StopIteration:
            return
        except RuntimeError as error:
            waited += LOOK_EVERY
            if not str(error).startswith("DataLoader timed out"):
                raise
            if waited >= LOST_AFTER:
                raise RuntimeError(f"DataLoader timed out after {waited} seconds") from error
            continue
        waited = 0
        yield made


class _Packs(Dataset):
    """Planned windows → a pack's buffer; what a worker runs."""

    def __init__(self, dataset: BattleDataset, shape: PackShape) -> None:
        self.dataset = dataset
        self.shape = shape
        self.layout = PackLayout(shape, dataset.space)

    def __getitem__(self, windows: list[Window]) -> tuple[torch.Tensor, PackReport] | DataError:
        try:
            return fill_buffer(self.dataset, windows, self.shape, self.layout)
        except DataError as error:  # a spoilt cache: handed over, for torch would wrap it in a worker's traceback
            return error


class _Sized:
    """An iterator with a length: what DataLoader asks of a sampler."""

    def __init__(self, items: Iterator[list[Window]], n: int) -> None:
        self._items = items
        self._n = n

    def __iter__(self) -> Iterator[list[Window]]:
        return self._items

    def __len__(self) -> int:
        return self._n


def shape_for(dataset: BattleDataset, batch: BatchConfig) -> PackShape:
    """Pack sizes for a data set: its mean window, with room to spare where lengths aren't known.

    Raises:
        DataError: a plan of packs is asked for and lengths aren't known.
    """
    if batch.plan == "packed" and dataset.lengths is None:
        raise DataError(
            "batch.plan is packed, but the lengths of the battles aren't known; run `python -m data.prepare index "
            f"--turns {dataset.name}`, set data.turns to always, or batch.plan to battles"
        )
    room = 1.0 if _is_planned(dataset, batch) else UNPLANNED_ROOM
    mean = 1.0 if batch.turns else dataset.mean_window() * room  # not needed, and costly, where the rows are given
    return pack_shape(batch, dataset.config.max_turns, mean)


def make_loader(
    dataset: BattleDataset,
    batch: BatchConfig,
    *,
    seed: int,
    rank: int = 0,
    world: int = 1,
    past: Sequence[Drawn] = (),
    max_steps: int,
    shape: PackShape | None = None,
) -> PackLoader:
    """The packs of one rank for the next `max_steps` steps, `batch.accumulate` a step.

    Args:
        dataset: battles to train on.
        batch: what a step holds.
        seed: of order and cuts.
        rank, world: this process, and how many there are.
        past: what was taken from the stream before, as `PackLoader.drawn` tells it.
        max_steps: how many steps there are packs for.
        shape: pack sizes (default: `shape_for`).

    Raises:
        DataError, ValueError: nothing to draw from, or sizes that don't fit.
    """
    if max_steps < 0:
        raise ValueError(f"max_steps={max_steps}: give 0 or more")
    shape = shape or shape_for(dataset, batch)
    planned = _is_planned(dataset, batch)
    rates = dataset.rates
    if not planned and dataset.lengths is not None:
        # Files known to be rejected aren't drawn, even where the plan doesn't use lengths.
        rates = np.where(dataset.lengths >= MIN_WINDOW, 1.0 if rates is None else rates, 0.0)
    plan = Plan(
        shape,
        seed=seed,
        n=len(dataset),
        keys=dataset.keys,
        lengths=dataset.lengths if planned else None,
        rates=rates,
        battles=batch.battles,
    )
    return PackLoader(
        dataset,
        plan,
        rank=rank,
        world=world,
        past=past,
        steps=max_steps,
        accumulate=batch.accumulate,
    )


def heldout_packs(
    dataset: BattleDataset, batch: BatchConfig, rank: int = 0, world: int = 1, shape: PackShape | None = None
) -> Iterator[Pack]:
    """Every window of the data set once, in order, cuts at offset 0, in packs of a run's shape, or for as many battles
    as there are.

    With several processes, rank r gets packs r, r + world, …: numbers of packs can then differ by one. Files rejected
    on the way are counted in the data set's ledger.
    """
    if shape is None:
        shape = shape_for(dataset, replace(batch, battles=min(batch.battles, max(1, len(dataset)))))
    ledger = dataset.ledger
    for windows in itertools.islice(heldout_plan(dataset.iter_lengths(), shape), rank, None, world):
        pack, report = build_pack(dataset, windows, shape)
        ledger.add(0, report.rejects)
        yield pack


def _is_planned(dataset: BattleDataset, batch: BatchConfig) -> bool:
    return dataset.lengths is not None and batch.plan != "battles"


def _one_thread(worker: int) -> None:
    # Workers copy and decode; threads of torch's own would only contend with the training process.
    torch.set_num_threads(1)
