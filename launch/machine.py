"""What a benchmark says of the machine and of its own process."""

import os
import platform
import resource
import time
from pathlib import Path

import psutil


def peak_rss() -> int:
    """Largest resident set of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cpu_seconds() -> float:
    """CPU seconds that this process, its threads and its child processes, ended ones too, have taken so far."""
    ended = os.times()
    living = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    children = sum(times.user + times.system for times in living)
    return time.process_time() + ended.children_user + ended.children_system + children


def on_cpu(threads: int) -> dict[str, str]:
    """The environment of a process that is timed by the seconds of its cores: it sees no GPU."""
    return {
        **os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE",
    }  # fmt: skip


def cpu_name() -> str:
    """The processor's model, from /proc."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
