"""How many packs may wait in shared memory: workers leave theirs in /dev/shm, of which a container has little.

Where it runs full a worker loses its pack with a complaint of its own, and whoever waits for the pack waits for ever.
Docker gives a container 64 MB unless it is told otherwise; twelve workers with four packs of 5,376 turns each fill 154.
"""

from __future__ import annotations

import logging
import os
import shutil

log = logging.getLogger(__name__)

SHARED = "/dev/shm"
SHARE = 0.5  # of what is free: NCCL and others live there too, and a file takes whole pages


def that_fit(workers: int, prefetch: int, nbytes: int, processes: int, held: int = 0) -> tuple[int, int]:
    """Workers and packs ahead for each of them, fewer where shared memory would not hold them all; (0, prefetch) where
    it does not hold one. Says so in the log.

    Args:
        workers, prefetch: as asked for, of each training process. 0 workers use no shared memory.
        nbytes: of a pack.
        processes: training processes on this machine, which share what is free.
        held: packs that each training process itself keeps there.
    """
    if not workers or not os.path.isdir(SHARED):
        return workers, prefetch
    free = shutil.disk_usage(SHARED).free
    room = max(0, int(SHARE * free / processes / nbytes) - held)
    if workers * prefetch <= room:
        return workers, prefetch
    fewer = min(workers, room)
    wanted = (workers * prefetch + held) * nbytes * processes / SHARE
    ahead = room // fewer if fewer else prefetch
    log.warning(
        "%s: %.0f MB are free, and %d workers × %d packs of %.1f MB in each of %d processes would want %.0f: taking "
        "data.workers=%d data.prefetch=%d. Give the container more (docker run --shm-size=8g, or --ipc=host)",
        SHARED, free / 1e6, workers, prefetch, nbytes / 1e6, processes, wanted / 1e6, fewer, ahead,
    )  # fmt: skip
    return fewer, ahead
