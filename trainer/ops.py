"""DeepSpeed's communication operation for the CPU, compiled before DeepSpeed asks for it, and never waited for in vain.

torch.utils.cpp_extension guards a build by a file `lock`, which is there while somebody builds. A build that is killed
leaves it, and everybody after waits for its removal without a word.
"""

import fcntl
import logging
import time
from pathlib import Path

import psutil
from torch.utils import cpp_extension

log = logging.getLogger(__name__)


def build_communication() -> None:
    """Compile and load the operation, some 40 s where it was never compiled; one process of this user after another.

    A lock that nobody holds is removed first. It is nobody's where none of this machine's processes has it open or
    compiles there, and none of ours builds, on another machine with the same home either.

    Raises what compiling raises, as DeepSpeed would a moment later.
    """
    import deepspeed  # takes seconds, and only runs with it come here
    from deepspeed.accelerator import get_accelerator

    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if builder is None or not deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
        return  # the very question that DeepSpeed asks: it does without
    folder = Path(cpp_extension._get_build_directory(builder.NAME, verbose=False))
    with open(folder / "turnwise.lock", "w") as ours:
        fcntl.lockf(ours, fcntl.LOCK_EX)
        lock = folder / "lock"
        while lock.exists():
            if not _building(folder.resolve()):
                log.warning("%s: left by a build that was killed; removed, and built anew", lock)
                lock.unlink(missing_ok=True)
            time.sleep(0.1)
        builder.load()


def _building(folder: Path) -> bool:
    """Whether a process of this machine holds the lock, or compiles there still, its parent being killed."""
    for process in psutil.process_iter():
        try:
            held = any(Path(file.path) == folder / "lock" for file in process.open_files())
            if held or Path(process.cwd()) == folder:
                return True
        except psutil.Error:  # ended meanwhile, or another user's
            continue
    return False
