"""The ledger of files that cannot be used: nothing is skipped silently, and too many stop a run."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import NamedTuple

log = logging.getLogger(__name__)

MIN_REJECTS = 2
TOLD = 20  # of what is found at once: a large cache brings thousands


class Reject(NamedTuple):
    """A file left out, with its reason."""

    path: str
    reason: str


class TooManyRejects(RuntimeError):  # noqa: N818 (it names the finding)
    """More of the files seen were rejected than the configuration allows."""


class RejectLedger:
    """Counts files judged and rejected, each file once, and stops a run past the allowed share.

    The rule: stop when at least two files, and more than `max_share` of the files judged, are rejected; one bad file
    names itself and never stops a run. Names are judged against all names, contents against the contents read. As long
    as only some of the contents were read, more than three standard deviations over the share are needed, so that two
    early ones among millions don't stop a run that is sound.

    Attributes:
        names, files, seen: names judged; files that there are; contents read.
        rejects: reason by path.
    """

    def __init__(self, max_share: float) -> None:
        self.max_share = max_share
        self.names = 0
        self.files = 0
        self.seen = 0
        self.rejects: dict[str, str] = {}
        self._bad_names = 0
        self._unnamed = 0
        self._judging = True

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is counted inside is judged at its end, so that it does not matter which source is counted first.

        Raises `TooManyRejects` there."""
        self._judging = False
        yield
        self._judging = True
        self._judge_names()
        self._judge_contents()

    def copy(self) -> RejectLedger:
        """A ledger that goes on from this one's counts."""
        other = RejectLedger(self.max_share)
        other.__dict__.update(self.__dict__, rejects=dict(self.rejects))
        return other

    @property
    def rejected(self) -> int:
        """Files rejected, those too whose names nobody kept."""
        return len(self.rejects) + self._unnamed

    def add_names(self, files: int, rejects: list[Reject]) -> None:
        """Count a source: files with good names, and the bad ones. Raises `TooManyRejects`."""
        self.files += files
        self.names += files + len(rejects)
        new = self._note(rejects)
        self._bad_names += new
        if new:
            self._judge_names()

    def add(self, seen: int, rejects: list[Reject], unnamed: int = 0) -> None:
        """Count contents read; `unnamed`: rejected besides, their names not kept by who read them (a large cache).

        Raises `TooManyRejects`, which tells the first reasons and what to do.
        """
        # Later epochs read the same files again.
        self.seen = min(self.seen + seen, max(self.files, self.seen))
        self._unnamed += unnamed
        if self._note(rejects) or unnamed:
            self._judge_contents()

    def _note(self, rejects: list[Reject]) -> int:
        new = [reject for reject in rejects if reject.path not in self.rejects]
        self.rejects |= {reject.path: reject.reason for reject in new}
        for reject in new[:TOLD]:
            log.warning("rejected %s: %s", reject.path, reject.reason)
        if len(new) > TOLD:
            log.warning(
                "… and %d more files: `python -m data.prepare verify` names those of a folder, manifest.json those of "
                "a token cache", len(new) - TOLD,
            )  # fmt: skip
        return len(new)

    def _judge_names(self) -> None:
        self._judge(self._bad_names, self.names, self.max_share * self.names)

    def _judge_contents(self) -> None:
        expected = self.max_share * self.seen
        slack = 3 * expected**0.5 + 1 if self.seen < self.files else 0.0
        self._judge(self.rejected - self._bad_names, self.seen, expected + slack)

    def _judge(self, count: int, judged: int, allowed: float) -> None:
        if self._judging and count >= MIN_REJECTS and count > allowed:
            shown = "\n  ".join(f"{path}: {reason}" for path, reason in list(self.rejects.items())[:5])
            raise TooManyRejects(
                f"{count} of {judged} files were rejected, over data.max_reject_share of {self.max_share:.2%}; look at "
                f"them with `python -m data.prepare verify`, or raise the share. The first:\n  {shown}"
            )
