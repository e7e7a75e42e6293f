"""Several processes stop at the same step, whichever of them was told to."""

import time

import torch
from accelerate import Accelerator

from trainer.to_host import ToHost


class Agreement:
    """Processes compare notes on whether one of them was told to stop, at the same steps on all: ten steps apart at
    most, and `WITHIN_S` by the steps before, for a scheduler's notice, or torchrun's 30 s, is soon over.

    late: notes are read a step after they were sent, as rows are (`Rows.late`), unless steps are so long that they are
    compared at each.
    """

    STEPS = 10
    WITHIN_S = 3.0

    def __init__(self, accelerator: Accelerator, late: bool):
        self.accelerator, self.late = accelerator, late
        self.next: int | None = None
        self.apart = 1
        self.last, self.at = 0, time.monotonic()
        self.took: float | None = None
        self.sent: ToHost | None = None

    def stops(self, step: int, asked: bool) -> bool:
        """Whether all stop after `step`; asked: this process was told to. To be called after every step."""
        if self.accelerator.num_processes == 1:
            return asked
        if self.sent is None:
            if self.next is not None and step < self.next:
                return False
            mine = torch.tensor([float(asked), self._seconds()], device=self.accelerator.device)
            self.sent = ToHost(self.accelerator.reduce(mine, reduction="sum"))
            if self.late and self.apart > 1:
                return False
        (told, seconds), self.sent = self.sent.read(), None
        self._settle(step, seconds / self.accelerator.num_processes)
        return told > 0

    def _seconds(self) -> float:
        """Of a step of this process, on average between the last two readings: since then the host may have handed
        steps over that a device has yet to take. At first, of all that went before."""
        return time.monotonic() - self.at if self.took is None else self.took

    def _settle(self, step: int, seconds: float) -> None:
        """When to compare next; seconds: of a step, on average over the processes."""
        apart = self.WITHIN_S / seconds if seconds > 0 else self.STEPS
        self.apart = max(1, min(self.STEPS, int(apart)))
        now = time.monotonic()
        self.took = (now - self.at) / (1 if self.next is None else step - self.last)
        self.last, self.at = step, now
        self.next = step + self.apart
