"""Rows of the training log: gathered on the device as a step ends, read by the host while the device is at the next.

Metrics reach this file as device tensors, summed over micro-batches; they cross to the host on logging steps alone.
"""

import time
from contextlib import contextmanager
from typing import NamedTuple

import torch
from accelerate import Accelerator

from trainer.flops import peak_flops
from trainer.to_host import Moment, ToHost

# Means over the decisions that the policy clones.
OVER_POLICY = ("policy/", "filter/", "value/q_data", "value/policy_minus_data", "value/target_drift")


class Clock:
    """Battles, turns and unknown words trained on, seconds spent waiting for data, and what the device took for all of
    it, since the last row was sent."""

    def __init__(self, unknown_id: int, device: torch.device):
        self.unknown_id, self.device = unknown_id, device
        self.restart()

    def restart(self) -> None:
        """Begin anew, where something else than training took time."""
        self.started = Moment(self.device)
        self._restart_counts()

    def _restart_counts(self) -> None:
        self.waited = 0.0
        self.battles = self.turns = self.rows = self.unknown = 0

    @contextmanager
    def waiting(self):
        """Around a wait for data."""
        began = time.monotonic()
        yield
        self.waited += time.monotonic() - began

    def count(self, packs: list[dict]) -> None:
        """Packs that were trained on."""
        for pack in packs:
            self.battles += int((pack["windows"][:, 0] >= 0).sum())
            self.turns += int(pack["valid"].sum())
            self.rows += pack["valid"].shape[0]
            # Rows of padding hold no unknown word.
            self.unknown += int((pack["words"] == self.unknown_id).sum())
            self.words = pack["words"].shape[1]

    def take_counts(self, processes: int) -> dict[str, float]:
        """Summed over processes they are totals, or means where divided by their number; then counting begins anew.
        `data/wait_share` is in seconds yet."""
        values = {
            "_battles": self.battles,
            "_turns": self.turns,
            "data/padding": (1 - self.turns / max(self.rows, 1)) / processes,
            "data/wait_share": self.waited / processes,
            "data/unknown_words": self.unknown / max(self.turns * self.words, 1) / processes,
        }
        self._restart_counts()
        return values

    def take_span(self) -> tuple[Moment, Moment]:
        """From the last call, or the restart, until now, on the device: the host's own seconds would be of other steps
        than the counts, wherever one row is read late and the next at once."""
        before, self.started = self.started, Moment(self.device)
        return before, self.started


class Sent(NamedTuple):
    """A row whose figures are on their way."""

    known: dict[str, float]
    names: list[str]  # of the figures, a discount's with its γ
    figures: ToHost
    span: tuple[Moment, Moment]  # that the figures are of


class Rows:
    """One row for each logged step.

    Read as soon as its step ends, a row has the device idle until the host has written it down and prepared the next
    step: milliseconds at every tenth step of some twenty. So on a device that works beside the host a row is to be
    read `late`, once the next step is under way.
    """

    def __init__(self, accelerator: Accelerator, gammas: list[float], clock: Clock):
        self.accelerator, self.gammas, self.clock = accelerator, gammas, clock
        self.late = accelerator.device.type == "cuda"
        self.peak = peak_flops(torch.cuda.get_device_name()) if self.late else None
        self.flops_per_turn = 0.0
        self.sent: Sent | None = None

    def send(self, known: dict[str, float], metrics: dict[str, torch.Tensor]) -> None:
        """A step's row: what the host knows of it, and this process's metrics, tensors of shape [] or [G], which are
        summed over processes. All processes call it at the same steps; nothing here waits for the device. Raises
        ValueError naming a metric, of another objective perhaps, of another kind or shape."""
        for name, value in metrics.items():
            if not isinstance(value, torch.Tensor) or tuple(value.shape) not in ((), (len(self.gammas),)):
                form = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
                raise ValueError(
                    f"metric {name!r} is of {form}: give OfflineRL.forward's as tensors of one value, [], or of one "
                    f"for each discount, [{len(self.gammas)}]"
                )
        counts = self.clock.take_counts(self.accelerator.num_processes)
        device = self.accelerator.device
        mine = torch.tensor(list(counts.values()), dtype=torch.float32).to(device, non_blocking=True)
        metrics = metrics | dict(zip(counts, mine, strict=True))
        flat = torch.cat([metrics[name].detach().reshape(-1).float() for name in sorted(metrics)])
        names = []
        for name in sorted(metrics):
            names += [name] if metrics[name].dim() == 0 else [f"{name}@{gamma}" for gamma in self.gammas]
        self.sent = Sent(known, names, ToHost(self.accelerator.reduce(flat, reduction="sum")), self.clock.take_span())

    def read(self) -> dict[str, float] | None:
        """The row that was sent, with the speeds since the one before, or None where there is none."""
        if self.sent is None:
            return None
        (known, names, figures, (began, ended)), self.sent = self.sent, None
        row = dict(zip(names, figures.read(), strict=True))
        seconds = ended.seconds_since(began)
        row["data/wait_share"] /= seconds
        row = known | of_the_policy(row, row.pop("_cloned"))
        row["speed/battles_per_s"] = row.pop("_battles") / seconds
        row["speed/turns_per_s"] = row.pop("_turns") / seconds
        if self.peak:
            per_gpu = row["speed/turns_per_s"] / self.accelerator.num_processes
            row["speed/mfu"] = self.flops_per_turn * per_gpu / self.peak
        return row


def of_the_policy(row: dict[str, float], decisions: float) -> dict[str, float]:
    """The row of a step whose policy term covers so many decisions: of none there is no mean, and 0 would be untrue."""
    return row if decisions else {name: value for name, value in row.items() if not name.startswith(OVER_POLICY)}
