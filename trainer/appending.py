"""What a run writes down as it goes: a row that finds no room costs the row, not the run."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)


@contextlib.contextmanager
def whole_or_not(path: Path) -> Iterator[None]:
    """Around an addition to a file. Where it fails (disk full), the file is cut back to what it was, so that the next
    row doesn't follow half of one, and the log says so."""
    size = path.stat().st_size if path.exists() else 0
    try:
        yield
    except OSError as error:
        log.error("%s: a row could not be written (%s); training goes on without it", path, error)
        with contextlib.suppress(OSError):  # never made, or a folder gone read-only: nothing was added
            os.truncate(path, size)
