"""A file that is there whole, or not at all; and what killed writers leave of it."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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
    deleted where it does not. As long as its writer lives, a lock on the folder tells `clear_left` so.

    Its name is drawn: the processes of several machines have the same numbers, as the first of every container has.
    It begins with a dot, which readers of battle files pass over. Raises OSError of what cannot be replaced.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with _locked(target.parent, alone=False):
            yield temporary
            os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink()


def clear_left(folder: Path) -> None:
    """Remove what `replacing` left in a folder where its process was killed: old files, while nobody writes there.
    Where locks cannot be had, all stay."""
    with _locked(folder, alone=True) as alone:
        for name in filter(LEFT.fullmatch, os.listdir(folder)) if alone else ():
            with suppress(OSError):
                if time.time() - (folder / name).lstat().st_mtime > SURELY_DONE:
                    (folder / name).unlink()


@contextmanager
def _locked(folder: Path, alone: bool) -> Iterator[bool]:
    """Hold a lock on a folder, shared with other writers or `alone`; gives whether it is held. Nobody waits for it.

    On the folder itself: a file that is locked on an SMB disk can be written by nobody who opens it anew (flock(2)).
    """
    with ExitStack() as stack:
        held = False
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            if fcntl is not None:
                fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                held = True
        yield held
