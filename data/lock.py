"""One writer at a time in a folder: two that write the same files would each spoil the other's night.

`hold` refuses the second, `locked` lets it wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
import socket
import time
from collections.abc import Iterator
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


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock, so that two processes don't do the same at once. Gives whether it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)  # a group may share it
    except OSError as error:
        _tell_unwritable(folder, error.strerror)
        yield False
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks: the writes are atomic anyway
            _lock(descriptor, folder)
        yield True
    finally:
        os.close(descriptor)


@functools.cache  # it is asked for once a format
def _tell_unwritable(folder: Path, reason: str) -> None:
    log.warning("%s cannot be written (%s): what it would keep is made anew each time", folder, reason)


def _lock(descriptor: int, folder: Path) -> None:
    """Take the lock, and say so where that takes longer than to open what is there, as the processes of a run do."""
    for _ in range(20):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
    log.warning("%s: another process is making what is read there; waiting for it", folder)
    return fcntl.flock(descriptor, fcntl.LOCK_EX)
