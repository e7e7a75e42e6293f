"""A training run holds its output folder, and every process of it hears where it cannot."""

import secrets
import socket
import time
from pathlib import Path
from typing import TextIO

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from data.lock import FolderHeld, hold
from trainer.errors import ConfigError, refuse_unwritable

PATIENCE_S = 10  # until a shared disk shows a new file elsewhere


def lock_output(output: Path, accelerator: Accelerator) -> TextIO | None:
    """Let the main process hold OUTPUT's lock; returns the file, to be kept open until the run ends. Collective.

    Raises ConfigError, in every process, where another run holds it, nothing can be written there, or it is a folder of
    one machine alone.
    """
    held, holder, fault = None, None, None
    mark = output / f".seen_{secrets.token_hex(8)}"  # a name that no machine can remember to be absent
    if accelerator.is_main_process:
        try:
            held = hold(output)
            if accelerator.num_processes > 1:
                mark.touch()
        except FolderHeld as error:
            holder = str(error)
        except OSError as error:
            fault = error.strerror
    holder, fault, name = broadcast_object_list([holder, fault, mark.name])
    if fault is not None:
        refuse_unwritable(output, fault)
    if holder is not None:
        raise ConfigError(f"{output}: another run trains there ({holder}): wait for its end, or give another output")
    if accelerator.num_processes > 1:
        # Elsewhere the others would not see its signs of life, and end it after `timeout_minutes`, nor could they read
        # its checkpoints.
        blind = [host for host in gather_object([None if _is_seen(output / name) else socket.gethostname()]) if host]
        mark.unlink(missing_ok=True)
        if blind:
            raise ConfigError(
                f"{output}: on {', '.join(sorted(set(blind)))} it is another folder than the first process's: give an "
                "output on a disk that all machines see"
            )
    return held


def _is_seen(mark: Path) -> bool:
    given_up = time.monotonic() + PATIENCE_S
    while not mark.exists():
        if time.monotonic() > given_up:
            return False
        time.sleep(0.1)
    return True
