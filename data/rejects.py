"""The ledger of files that cannot be used: nothing is skipped silently, and too many stop a run."""

from __future__ import annotations

import logging
from collections import Counter
from typing import NamedTuple

log = logging.getLogger(__name__)

MIN_REJECTS = 2


class Reject(NamedTuple):
    """A file left out, with its reason."""

    path: str
    reason: str


class TooManyRejects(RuntimeError):  # noqa: N818 (it names the finding)
    """More of the files seen were rejected than the configuration allows."""


class RejectLedger:
    """Counts files seen and rejected, each file once, and stops a run past the allowed share.

    The rule: stop when at least two files and more than `max_share` of the files seen so far are rejected; one bad file
    names itself and never stops a run.
    """

    def __init__(self, max_share: float) -> None:
        self.max_share = max_share
        self.seen = 0
        self.rejects: dict[str, str] = {}

    def add(self, seen: int, rejects: list[Reject]) -> None:
        """Count files. Raises `TooManyRejects`, which tells the first reasons and what to do."""
        self.seen += seen
        new = [reject for reject in rejects if reject.path not in self.rejects]
        for reject in new:
            self.rejects[reject.path] = reject.reason
            log.warning("rejected %s: %s", reject.path, reject.reason)
        count = len(self.rejects)
        if new and count >= MIN_REJECTS and count > self.max_share * max(self.seen, count):
            shown = "\n  ".join(f"{path}: {reason}" for path, reason in list(self.rejects.items())[:5])
            raise TooManyRejects(
                f"{count} of {self.seen} files were rejected, over data.max_reject_share of {self.max_share:.2%}; look "
                f"at them with `python -m data.prepare verify`, or raise the share. The first:\n  {shown}"
            )

    def by_reason(self) -> dict[str, int]:
        """Rejected files by the field at fault."""
        return dict(Counter(reason.split(":", 1)[0].split("[", 1)[0] for reason in self.rejects.values()))
