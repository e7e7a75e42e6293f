"""What the device has reckoned, read by the host without holding up what the device was given to do since."""

import time
from typing import Any

import torch


class ToHost:
    """A tensor's values on their way to the host, behind whatever the device was given to do before."""

    def __init__(self, values: torch.Tensor):
        self.values, self.arrived = values.detach(), None
        if values.is_cuda:
            self.values = self.values.to("cpu", non_blocking=True)  # torch takes page-locked memory for it
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def read(self) -> Any:
        """A float, or a list of them; waits until they are here."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.values.tolist()


class Moment:
    """When the device is done with all that it was given so far: later than now, where it works beside the host."""

    def __init__(self, device: torch.device):
        self.time, self.event = time.monotonic(), None
        if device.type == "cuda":
            self.event = torch.cuda.Event(enable_timing=True)
            self.event.record()

    def seconds_since(self, earlier: "Moment") -> float:
        """By the device's own clock; waits until the moment is there."""
        if self.event is None:
            return self.time - earlier.time
        self.event.synchronize()
        return earlier.event.elapsed_time(self.event) / 1e3
