"""What the device has reckoned, read by the host without holding up what the device was given to do since."""

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
