"""Bad batches: updates that were skipped are counted and their battles written down; too many in a row go back."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import gather_object

from trainer.appending import whole_or_not
from trainer.limits import positive, refuse_unless
from trainer.to_host import ToHost

LOG = "skipped_batches.jsonl"


@dataclass
class GuardConfig:
    skips_in_a_row: int = 20  # skipped updates after which a run goes back to its last checkpoint, other data ahead
    spike: float | None = None  # skip an update whose loss or gradient norm is this many deviations above its mean
    spike_memory: int = 200  # updates over which mean and deviation are taken; none is skipped before as many

    def check(self) -> None:
        """Raises ValueError naming the key."""
        rules = [
            ("skips_in_a_row", self.skips_in_a_row >= 1, "1 or more"),
            ("spike", self.spike is None or positive(self.spike), "a number of deviations above 0 (6, say), or null"),
            ("spike_memory", self.spike_memory >= 1, "1 or more"),
        ]
        refuse_unless("guard.", self, rules)


class TooManySkipsError(RuntimeError):
    """Updates were skipped again after going back once; the message says where the batches are listed."""


class SpikeGuard:
    """Decides on the device whether a step's loss or gradient norm is a spike.

    Mean and variance of log(loss) and log(gradient norm) decay exponentially over `spike_memory` updates; a value more
    than `spike` deviations above the mean is a spike, and is left out of both. Logarithms, for both are positive and
    skewed. State: fp64 [3, 2] (mean, variance, count) × (loss, norm).
    """

    def __init__(self, config: GuardConfig, device: torch.device):
        self.config = config
        self.state = torch.zeros(3, 2, dtype=torch.float64, device=device)

    def forget(self) -> None:
        """Begin anew, where the loss itself becomes another: measured by the one before, every step would be a spike,
        and left out of the mean for ever."""
        self.state.zero_()

    def is_spike(self, value: torch.Tensor, which: int) -> torch.Tensor:
        """value [] → fp32 [] 1 where it is a spike of loss (`which` 0) or gradient norm (1). No host sync."""
        x = value.detach().double().clamp_min(1e-12).log()
        mean, variance, count = self.state[:, which]
        known = count >= self.config.spike_memory
        spike = known & (x > mean + self.config.spike * variance.sqrt().clamp_min(1e-3))
        taken = ~spike & x.isfinite()
        rate = 1.0 / (count + 1).clamp_max(self.config.spike_memory)
        delta = torch.where(taken, x - mean, 0.0)
        new = torch.stack([
            mean + rate * delta,
            torch.where(taken, (1 - rate) * (variance + rate * delta * delta), variance),
            count + taken,
        ])  # fmt: skip
        self.state[:, which] = new
        return spike.float()


class SkipLedger:
    """Steps whose update was skipped, known a logging interval late: reading them earlier would wait for the device."""

    def __init__(self, output: Path, config: GuardConfig, accelerator, path_of):
        """path_of(row) → the file of a battle in the training set."""
        self.file, self.config, self.accelerator, self.path_of = output / LOG, config, accelerator, path_of
        self.pending: list[tuple[int, ToHost, list[torch.Tensor]]] = []
        self.in_a_row, self.bad = 0, []
        self.alone = False  # this process fails, and what the others are at is not known: none is to be waited for

    def note(self, step: int, skipped: torch.Tensor, packs: list[dict]) -> None:
        """skipped []: positive where the update of `step` was skipped; the same on all processes."""
        # Copies: a view would keep the whole pack alive, one a step, in shared or page-locked memory.
        self.pending.append((step, ToHost(skipped), [pack["windows"].clone() for pack in packs]))

    def take(self) -> list[int]:
        """Steps skipped since the last call."""
        self.review()
        bad, self.bad = self.bad, []
        return bad

    def review(self) -> None:
        """Waits for the device to say which updates were skipped; the battles of all processes are appended to
        OUTPUT/skipped_batches.jsonl by the main one. All processes call it at the same steps."""
        rows = []
        for step, flag, windows in self.pending:
            skipped = flag.read() > 0
            self.in_a_row = self.in_a_row + 1 if skipped else 0
            if skipped:
                self.bad.append(step)
                rows.append({"step": step, "process": self.accelerator.process_index, "battles": self._name(windows)})
        self.pending.clear()
        if rows:
            self._write(rows)

    @property
    def too_many(self) -> bool:
        return self.in_a_row >= self.config.skips_in_a_row

    def _name(self, windows: list[torch.Tensor]) -> list[dict]:
        rows = torch.cat(windows)
        rows = rows[rows[:, 0] >= 0].tolist()
        return [{"file": str(self.path_of(row)), "start": start, "turns": turns} for row, start, turns in rows]

    def _write(self, rows: list[dict]) -> None:
        # One process writes: what each of several adds to a file could fall into the others' rows, on a full disk or
        # on a file system of several machines.
        if self.accelerator.num_processes > 1 and not self.alone:
            rows = gather_object(rows)
        if self.accelerator.is_main_process:
            rows = sorted(rows, key=lambda row: (row["step"], row["process"]))
            with whole_or_not(self.file), open(self.file, "a", encoding="utf-8") as handle:
                handle.writelines(json.dumps(row) + "\n" for row in rows)
