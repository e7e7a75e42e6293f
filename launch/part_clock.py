"""A step's time by part: the trainer's own step with a clock at the seams between its parts."""

import time
from collections import defaultdict

import torch
from torch.autograd import DeviceType

from trainer.step import TrainStep


def kernel_seconds(profiler: torch.profiler.profile) -> float | None:
    """Seconds of all kernels and copies that the profiler saw on the device; None where it saw none, lacking CUPTI."""
    events = (event for event in profiler.key_averages() if event.device_type == DeviceType.CUDA)
    return sum(event.self_device_time_total for event in events if not event.is_user_annotation) / 1e6 or None


class PartClock:
    """Charges time to parts: `mark(name)` charges what passed since the mark before. On CUDA in the device's own time
    (events on its stream), so a part that waits for the host shows and one that runs behind it does not."""

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.marks: list[tuple[str, object]] = []
        self.mark("")

    def mark(self, name: str) -> None:
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        else:
            event = time.perf_counter()
        self.marks.append((name, event))

    def take(self) -> list[dict[str, float]]:
        """Seconds by part of each step since the last call; a step ends at a mark named "step ends"."""
        if self.cuda:
            torch.cuda.synchronize()
        steps, current = [], defaultdict(float)
        for (_, before), (name, at) in zip(self.marks, self.marks[1:], strict=False):
            current[name] += before.elapsed_time(at) / 1e3 if self.cuda else at - before
            if name == "step ends":
                current["optimizer"] += current.pop(name)
                steps.append(dict(current))
                current = defaultdict(float)
        self.marks = self.marks[-1:]
        return steps


class TimedStep(TrainStep):
    """The trainer's step with a clock: forward, backward and optimizer are told apart, nothing else is changed."""

    def __init__(self, step: TrainStep, clock: PartClock):
        super().__init__(
            step.accelerator,
            step.module,
            step.objective,
            step.optimizer,
            step.config,
            step.seed,
            step.total_steps,
            step.spikes,
            step.average,
        )
        self.clock, self.call, self.since = clock, step.module, "optimizer"
        self.module = self._forward

    def _forward(self, *inputs):
        self.clock.mark(self.since)
        out = self.call(*inputs)
        self.clock.mark("forward")
        self.since = "backward"
        return out

    def _update(self, detailed: bool):
        self.clock.mark("backward")
        self.since = "optimizer"
        return super()._update(detailed)

    def watch_parts(self) -> None:
        """Run eagerly from here on, with hooks that tell turn encoder, trunk, and the rest of the forward apart."""
        torch.compiler.set_stance("force_eager")  # hooks would break the compiled graph
        model, clock = self.objective.network.model, self.clock
        model.turn_encoder.register_forward_pre_hook(lambda *_: clock.mark("heads and loss"))
        model.turn_encoder.register_forward_hook(lambda *_: clock.mark("turn encoder"))
        model.trunk.register_forward_pre_hook(lambda *_: clock.mark("turn encoder"))
        model.trunk.register_forward_hook(lambda *_: clock.mark("trunk"))
