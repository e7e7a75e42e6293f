"""The bar of work that takes minutes: on a terminal as it goes, in a log file a word a minute."""

import contextlib
import sys
from typing import Any, TextIO

from tqdm import tqdm

IN_A_FILE = 60.0  # seconds between two words where nobody watches


class _Unfailing:
    """A stream that the bar is written to: a log on a full disk is no reason to end the work that it tells of."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def progress_bar(total: int | None = None, done: int = 0, desc: str | None = None, show: bool = True) -> tqdm:
    """A bar of battles on standard error.

    Args:
        total: how many there are, None where nobody knows yet.
        done: how many an earlier command did.
        desc: title.
        show: False for none.
    """
    wait = {} if sys.stderr.isatty() else {"mininterval": IN_A_FILE, "maxinterval": IN_A_FILE}
    look = {"unit": " battles", "smoothing": 0.05, **wait}
    return tqdm(total=total, initial=done, desc=desc, disable=not show, file=_Unfailing(sys.stderr), **look)
