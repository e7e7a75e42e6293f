"""A file that is there whole, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside `target` to write the new file at; it takes the target's place where the block ends well, and is
    deleted where it does not.

    Its name is drawn: the processes of several machines have the same numbers, as the first of every container has.
    It begins with a dot, which readers of battle files pass over. Raises OSError of what cannot be replaced.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink()
