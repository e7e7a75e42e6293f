"""Signs of life between the processes of a run: one that dies is noticed wherever the others wait.

Collectives have timeouts of their own, but not all: DeepSpeed's first meeting of the processes has none.
"""

import logging
import os
import socket
import threading
import time
from pathlib import Path

from trainer.errors import refuse_unwritable

log = logging.getLogger(__name__)
BEAT_S = 2.0
LOST = 1  # exit code


class Watchdog:
    """Touches a file of this process in OUTPUT/.alive every two seconds and watches the others'.

    Who they are is what the launcher says (RANK, WORLD_SIZE).
    Where another's has not been touched for `timeout_s` (by this machine's own clock: clocks of several are not
    compared), this process says who that is and ends with code 1. Does nothing in a world of one.
    """

    def __init__(self, output: Path, timeout_s: float):
        self.folder, self.timeout_s = output / ".alive", timeout_s
        self.rank, self.world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.over = threading.Event()
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Raises ConfigError where nothing can be written in OUTPUT."""
        if self.world == 1:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file(self.rank).write_text(f"pid {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        except OSError as error:
            refuse_unwritable(self.folder.parent, error.strerror)
        self.thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")
        self.thread.start()

    def stop(self) -> None:
        """From here on the processes may end at different times."""
        self.over.set()
        if self.thread is not None:
            self.thread.join()

    def _watch(self) -> None:
        seen = {rank: (None, time.monotonic()) for rank in range(self.world) if rank != self.rank}
        while not self.over.wait(BEAT_S):
            self._touch()
            now = time.monotonic()
            for rank, (last, since) in seen.items():
                touched = self._touched(rank)
                if touched != last:
                    seen[rank] = touched, now
                elif now - since > self.timeout_s:
                    log.error(
                        "process %d of %d (%s) has given no sign of life for %.0f s: process %d ends too",
                        rank, self.world, self._name(rank), now - since, self.rank,
                    )  # fmt: skip
                    # The main thread waits inside a collective and cannot be asked.
                    os._exit(LOST)

    def _touch(self) -> None:
        try:
            os.utime(self._file(self.rank))
        except OSError as error:
            log.warning("%s: %s", self._file(self.rank), error)

    def _touched(self, rank: int) -> int | None:
        try:
            return self._file(rank).stat().st_mtime_ns
        except OSError:
            return None

    def _name(self, rank: int) -> str:
        try:
            return self._file(rank).read_text(encoding="utf-8")
        except OSError:
            return "never seen"

    def _file(self, rank: int) -> Path:
        return self.folder / str(rank)
