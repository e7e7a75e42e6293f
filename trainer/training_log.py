"""What a run writes in OUTPUT and others read: the figures of `training_log.csv`, row by row, and its JSON files."""

import csv
import json
import os
from pathlib import Path

from trainer.appending import whole_or_not


def whole_lines(path: Path) -> list[str]:
    """The log's lines as they stand, without the half row that a run that was killed may have left at the end."""
    with open(path, newline="", encoding="utf-8") as handle:
        return [line for line in handle if line.endswith("\n")]


def read_json(path: Path) -> dict | None:
    """What a run left as JSON; None where it left none. Raises ValueError where a full disk, say, kept half of it."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except ValueError as error:
        raise ValueError(f"{path}: is not whole ({error}): the command that made it writes it anew") from error


def hours_until(path: Path, step: int) -> float:
    """Hours that a run had taken when `step` was done, by its log; 0 where there is none."""
    rows = csv.DictReader(whole_lines(path)) if path.exists() else ()
    return max((float(row.get("time/hours") or 0.0) for row in rows if int(row["step"]) <= step), default=0.0)


class CsvLog:
    """`training_log.csv`: appended row by row; after a resume, rows from the resumed step on are dropped first.

    Columns are those of the first row; held-out columns stand empty between evaluations. `hours`: what the run had
    taken when it was resumed. A row that cannot be written is named in the log.
    """

    def __init__(self, path: Path, resume_step: int):
        self.path, self.columns, self.hours = path, None, 0.0
        if not path.exists():
            return
        lines = whole_lines(path)
        rows = list(csv.DictReader(lines))
        if resume_step > 0:
            # Steps that are done again were paid for all the same.
            self.hours = max((float(row.get("time/hours") or 0.0) for row in rows), default=0.0)
        kept = sum(int(row["step"]) <= resume_step for row in rows)
        if kept == 0:
            path.unlink()
            return
        # What is dropped stands at the end: cut off, it wants no room, and no moment sees the rest half written.
        os.truncate(path, sum(len(line.encode()) for line in lines[: 1 + kept]))
        self.columns = list(rows[0])

    def write(self, row: dict) -> None:
        """Append a row; a column that the file lacks yet (an evaluation's) makes it be written anew."""
        with whole_or_not(self.path):
            if self.columns is None or not set(row) <= set(self.columns):
                self._widen(row)
                return
            with open(self.path, "a", newline="") as handle:
                csv.DictWriter(handle, self.columns, restval="").writerow(row)

    def _widen(self, row: dict) -> None:
        rows = []
        if self.path.exists():
            with open(self.path, newline="") as handle:
                rows = list(csv.DictReader(handle))
        columns = list(dict.fromkeys([*(self.columns or []), *row]))
        temporary = self.path.with_suffix(".tmp")
        with open(temporary, "w", newline="") as handle:
            writer = csv.DictWriter(handle, columns, restval="")
            writer.writeheader()
            writer.writerows([*rows, row])
        temporary.replace(self.path)
        self.columns = columns
