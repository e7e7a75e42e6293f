"""One run at a time in an output folder: two that write the same checkpoints would each spoil the other's night."""

import fcntl
import logging
import os
import socket
from pathlib import Path
from typing import TextIO

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from trainer.config import ConfigError

log = logging.getLogger(__name__)
NAME = ".lock"


def lock_output(output: Path, accelerator: Accelerator) -> TextIO | None:
    """Let the main process hold OUTPUT's lock; returns the file, to be kept open until the run ends.

    The lock is POSIX's: it ends with its process, however that ends, and loader workers do not inherit it. Collective.
    Raises ConfigError, in every process, where another run holds it, or nothing can be written there.
    """
    held, holder, fault = None, None, None
    if accelerator.is_main_process:
        try:
            output.mkdir(parents=True, exist_ok=True)
            held = open(output / NAME, "a+", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            fault = error.strerror
    if held is not None:
        try:
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            holder = held.read()
        except OSError as error:
            log.warning("%s: no locks here (%s): see to it that no other run writes there", output / NAME, error)
        else:
            held.truncate(0)
            held.write(f"process {os.getpid()} on {socket.gethostname()}")
            held.flush()
    holder, fault = broadcast_object_list([holder, fault])
    if fault is not None:
        raise ConfigError(f"{output}: nothing can be written there ({fault}): give another output")
    if holder is not None:
        raise ConfigError(f"{output}: another run trains there ({holder}): wait for its end, or give another output")
    return held
