"""The bar of work that takes minutes: on a terminal as it goes, in a log file a word a minute."""

import sys

from tqdm import tqdm

IN_A_FILE = 60.0  # seconds between two words where nobody watches


def progress_bar(total: int | None = None, done: int = 0, desc: str | None = None, show: bool = True) -> tqdm:
    """A bar of battles on standard error.

    Args:
        total: how many there are, None where nobody knows yet.
        done: how many an earlier command did.
        desc: title.
        show: False for none.
    """
    wait = {} if sys.stderr.isatty() else {"mininterval": IN_A_FILE, "maxinterval": IN_A_FILE}
    return tqdm(total=total, initial=done, desc=desc, disable=not show, unit=" battles", smoothing=0.05, **wait)
