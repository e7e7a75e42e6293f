"""One writer at a time in an output folder: two that write the same files would each spoil the other's night."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from pathlib import Path
from typing import TextIO

log = logging.getLogger(__name__)

NAME = ".lock"


class FolderHeld(RuntimeError):  # noqa: N818 (names the finding)
    """Another process holds the folder; the text says which."""


def hold(folder: Path) -> TextIO:
    """Hold a folder's lock, made where it is not there; returns the file, to be kept open as long as that lasts.

    The lock is POSIX's: it ends with its process, however that ends, and child processes do not inherit it.

    Raises:
        FolderHeld: another process holds it.
        OSError: nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = open(folder / NAME, "a+", encoding="utf-8")  # noqa: SIM115
    try:
        fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.seek(0)
        raise FolderHeld(held.read()) from None
    except OSError as error:
        log.warning("%s: no locks here (%s): see to it that no other run writes there", folder / NAME, error)
    else:
        held.truncate(0)
        held.write(f"process {os.getpid()} on {socket.gethostname()}")
        held.flush()
    return held
