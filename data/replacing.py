"""A file that is there whole, or not at all; and what killed writers leave of it."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where a saved model acts, too
    fcntl = None

LEFT = re.compile(r"\..+\.(?:arrow|bin|json|lz4)\.[0-9a-f]{8}")
SURELY_DONE = 3600.0  # seconds without a write, where a lock does not reach the writer's machine


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside `target` to write the new file at; it takes the target's place where the block ends well, and is
    deleted where it does not. As long as its writer lives, a lock on it tells `clear_left` so.

    Its name is drawn: the processes of several machines have the same numbers, as the first of every container has.
    It begins with a dot, which readers of battle files pass over. Raises OSError of what cannot be replaced.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with _held(temporary):
            yield temporary
        os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def _held(temporary: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    with open(temporary, "xb") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def clear_left(folder: Path) -> None:
    """Remove what `replacing` left in a folder where its process was killed: old files that nobody holds. Where locks
    cannot be had, all stay."""
    for name in os.listdir(folder):
        file = folder / name
        with suppress(OSError):
            if LEFT.fullmatch(name) and time.time() - file.lstat().st_mtime > SURELY_DONE:
                with open(file, "r+b") as left:
                    fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    file.unlink()
