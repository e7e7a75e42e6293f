"""A training run holds its output folder, and every process of it hears where it cannot."""

from pathlib import Path
from typing import TextIO

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from data.lock import FolderHeld, hold
from trainer.errors import ConfigError, refuse_unwritable


def lock_output(output: Path, accelerator: Accelerator) -> TextIO | None:
    """Let the main process hold OUTPUT's lock; returns the file, to be kept open until the run ends. Collective.

    Raises ConfigError, in every process, where another run holds it, or nothing can be written there.
    """
    held, holder, fault = None, None, None
    if accelerator.is_main_process:
        try:
            held = hold(output)
        except FolderHeld as error:
            holder = str(error)
        except OSError as error:
            fault = error.strerror
    holder, fault = broadcast_object_list([holder, fault])
    if fault is not None:
        refuse_unwritable(output, fault)
    if holder is not None:
        raise ConfigError(f"{output}: another run trains there ({holder}): wait for its end, or give another output")
    return held
