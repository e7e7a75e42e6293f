"""Saving beside training: the state is copied at a step's end, and written while the next steps run."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer import checkpoint
from trainer.state import TrainingState, gather

log = logging.getLogger(__name__)


class Saver:
    """Writes a run's checkpoints, keeps the newest and the best, and says when that failed.

    Every process makes one and calls `save` at the same steps; the main one writes, in a thread of its own. A
    checkpoint that cannot be written (disk full, folder read-only) is named in the log and training goes on: the ones
    before it stay, and the next is tried when it is due. `finish` raises if the last one failed.
    """

    def __init__(self, output: Path, accelerator, parts: tuple, network, tokenizer, keep: int, background: bool):
        """parts: (module, objective, optimizer) as prepared, and the weights' average or None."""
        self.output, self.accelerator, self.parts = output, accelerator, parts
        self.network, self.tokenizer, self.keep, self.background = network, tokenizer, keep, background
        self.thread: threading.Thread | None = None
        self.failure: Exception | None = None
        self.written: Callable[[Path, int], None] | None = None  # called with each checkpoint and its step
        self.held_s = 0.0  # seconds that training stood still for saving, since last read

    def save(self, step: int, record: dict[str, Any]) -> None:
        """Copy the state of `step` and start writing it. `record` is what `checkpoint.write` asks for."""
        started = time.monotonic()
        self.wait()  # first: two states at once would take twice the memory
        state = gather(self.accelerator, *self.parts)
        if self.accelerator.is_main_process:
            self.thread = threading.Thread(target=self._write, args=(step, state, record), name="saver")
            self.thread.start()
            if not self.background:
                self.wait()
        self.held_s += time.monotonic() - started

    def finish(self) -> None:
        """Wait until the last checkpoint is on disk. Raises CheckpointError where it could not be written."""
        started = time.monotonic()
        self.wait()
        self.held_s += time.monotonic() - started
        if self.failure is not None:
            raise checkpoint.CheckpointError(
                f"{self.output}: the last checkpoint could not be written ({self.failure}): make room, or make the "
                "folder writable, and start again with resume=auto: it goes on from the newest whole checkpoint"
            ) from self.failure

    def take_held_s(self) -> float:
        """Seconds held up by saving since the last call."""
        held, self.held_s = self.held_s, 0.0
        return held

    def wait(self) -> None:
        """Wait until the last checkpoint is written, or has failed to be."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None

    def _write(self, step: int, state: TrainingState, record: dict[str, Any]) -> None:
        try:
            folder = checkpoint.write(self.output, step, state, record, self.network, self.tokenizer)
            if self.written is not None:
                self.written(folder, step)
            if not record["skipping"]:  # the way back out of a stretch of skipped updates stays
                checkpoint.prune(self.output, self.keep, record["best"] and record["best"]["step"])
            self.failure = None
        except Exception as error:  # of whatever kind: a thread's error must reach the log, and `finish`
            self.failure = error
            log.error("step %d: the checkpoint could not be written (%s); training goes on", step, error)
