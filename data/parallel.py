"""Work over many files by several processes, in order, with a progress bar."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TypeVar

from .progress import progress_bar

T = TypeVar("T")
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of a core's time in so many (Linux's cgroups, version 2)
PIECE = 256
ALONE_UP_TO = 2_000
BAR_FROM = 500


def cores() -> int:
    """Cores that this process may use: a scheduler or a container gives some of a machine's, and memory for as many;
    some by naming them, some (docker run --cpus, Kubernetes) by a share of everybody's time."""
    given = len(os.sched_getaffinity(0))
    try:
        quota, period = QUOTA.read_text(encoding="utf-8").split()
        return min(given, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no container of this kind, or "max": as much as there is
        return given


class WorkerLost(RuntimeError):  # noqa: N818 (names the finding)
    """A worker process was killed from outside."""


@contextlib.contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of forked processes. Raises `WorkerLost` where one of them is killed, and does not wait for it."""
    try:
        with ProcessPoolExecutor(count, mp_context=get_context("fork"), initializer=_begin) as pool:
            yield pool
    except BrokenProcessPool as error:
        raise WorkerLost(
            f"one of {count} processes that read battles was killed, for want of memory perhaps: make room, or give "
            "fewer by --processes; what is finished is kept"
        ) from error


def _begin() -> None:
    """In a worker: Ctrl-C is for the process that leads, which lets what is under way end. Where that one is killed,
    its workers end: they would wait for work for ever, and hold the locks of files that they were born with."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent_process().pid,), daemon=True).start()


def _end_with(leader: int) -> None:
    while os.getppid() == leader:
        time.sleep(0.5)
    os._exit(1)


def map_pieces(
    work: Callable[[Sequence[str]], T],
    items: Sequence[str],
    *,
    desc: str,
    processes: int | None = None,
    bar: bool = True,
) -> Iterator[T]:
    """`work` on pieces of `items`, results in order.

    Args:
        work: takes a piece of the items; must be picklable where several processes work.
        items: file names.
        desc: the bar's title.
        processes: how many; default the number of cores, and one for few items.
        bar: show a bar for more than some hundred items.
    """
    count = processes or (1 if len(items) <= ALONE_UP_TO else cores())
    pieces = [items[at : at + PIECE] for at in range(0, len(items), PIECE)]
    with progress_bar(len(items), desc=desc, show=bar and len(items) >= BAR_FROM) as shown:
        if count <= 1 or len(pieces) <= 1:
            for piece in pieces:
                yield work(piece)
                shown.update(len(piece))
            return
        with workers(count) as pool:
            # Few results wait at once, however many files there are.
            waiting: deque = deque()
            try:
                for piece in pieces:
                    waiting.append((len(piece), pool.submit(work, piece)))
                    if len(waiting) > 4 * count:
                        n, future = waiting.popleft()
                        yield future.result()
                        shown.update(n)
                for n, future in waiting:
                    yield future.result()
                    shown.update(n)
            finally:
                pool.shutdown(cancel_futures=True)  # of whoever stops half way
