"""The launcher that started this process: where it dies, what goes on below it is nobody's to stop, or to end with."""

import os
import re
from itertools import pairwise

import psutil

# What Python runs: a launcher's script, or its module.
_SCRIPT = r"(.*/)?(torchrun|accelerate(-launch)?|deepspeed)"
_OURS = re.compile(_SCRIPT + r"|(torch\.distributed|accelerate\.commands|deepspeed)\..+")


class Launcher:
    """torchrun, accelerate and `deepspeed` over this process, the last of two processes (`line`, from the nearest up);
    of a run that was started alone there is none, and of other parents, such as a shell, nothing is expected.

    They die of a signal that they do not hand on (torchrun and accelerate of SIGUSR1, `deepspeed` on one machine, and
    accelerate over one plain process, of any) or of SIGKILL, and their processes would train on.
    """

    def __init__(self):
        self.line: list[int] = []
        pid = os.getppid()
        while _launches(pid):
            self.line.append(pid)
            pid = _parent(pid)

    def gone(self) -> bool:
        """Whether one of them has ended since: its child has another parent then."""
        if not self.line:
            return False
        return os.getppid() != self.line[0] or any(_parent(below) != above for below, above in pairwise(self.line))


def _launches(pid: int) -> bool:
    try:
        program, *rest = psutil.Process(pid).cmdline() or [""]
    except psutil.Error:
        return False
    return "python" in os.path.basename(program) and _OURS.fullmatch(_run_by(rest)) is not None


def _run_by(arguments: list[str]) -> str:
    """The script, or the module behind -m, that Python runs by its arguments."""
    left = iter(arguments)
    for part in left:
        if part == "-m":
            return next(left, "")
        if part in ("-X", "-W"):
            next(left, None)
        elif not part.startswith("-"):
            return part
    return ""


def _parent(pid: int) -> int:
    """0 where there is no such process any more."""
    try:
        return psutil.Process(pid).ppid()
    except psutil.Error:
        return 0
