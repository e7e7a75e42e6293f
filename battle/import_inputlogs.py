"""Input logs → battle files: `python -m battle.import_inputlogs FILES… --out DIR`.

An input log holds a battle's seed, its teams and every choice of both players. Played again on the simulator it gives
both first-person views exactly. Read are JSONL files (`.jsonl`, `.jsonl.gz`: one object a line with id, format, seed,
teams, choices, and if there winner (p1, p2 or tie), lines_sha256, ratings, date) and Showdown's own input logs
(`.inputlog`, one battle a file, its id the file's name). What does not replay is left out with its reason, and so is a
second battle of one id; given again, what was left out is tried again. A battle without a date, as every `.inputlog`,
is written under 2000-01-01, and the report counts them (`undated`): a filter by date takes them for that old.
A file that cannot be read to its end is named, the others go on, and the exit status is 1. No names of people are kept.
Ctrl-C ends it after the battles at hand; the same command goes on with the rest.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import logging
import re
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from battle.errors import BattleError
from battle.recorder import Recorder, claim, content, open_journal, word
from battle.simulator import Event, Simulator
from battle.stop import listen
from data.arguments import at_least_one
from data.progress import progress_bar
from data.report_file import report_file, write_report
from data.terminal import first_line, steady_output

log = logging.getLogger(__name__)

JOURNAL = "imported.jsonl"
WINNERS = ("p1", "p2", "tie")
NO_DATE = date(2000, 1, 1)  # in the name of a file, which must hold one
OUT_OF_REACH = ("custom rules", "no singles format of this Showdown")  # reasons that are no failure to replay


class BadLog(BattleError):  # noqa: N818
    """A log that cannot be read as a battle: which, and why."""


class BadFile(BadLog):
    """A file that is cut, damaged, or of another kind: which, and what to do."""


class _View(msgspec.Struct):
    states: list[msgspec.Raw]
    actions: list[int]
    legal: list[int]


@dataclass
class Log:
    """One battle to replay. teams: packed; seeds: team seeds where there are no teams."""

    id: str
    format: str
    seed: Any
    choices: list[str]
    teams: list[str] | None = None
    seeds: list[Any] | None = None
    winner: str | None = None
    sha256: str | None = None
    ratings: list[Any] = field(default_factory=lambda: [None, None])
    date: date | None = None

    def message(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "word": re.sub(r"[^a-z0-9]", "", self.format.split("@@@")[0].lower()),
            "seed": self.seed,
            "teams": self.teams,
            "seeds": self.seeds,
            "choices": self.choices,
        }


def read_jsonl(path: Path) -> Iterator[Log | BadLog]:
    """The battles of a JSONL file; a BadLog for a line that is none, a BadFile where it goes no further or has none."""
    opener = gzip.open if path.suffix == ".gz" else open
    number = battles = 0
    try:
        if tarfile.is_tarfile(path):
            yield BadFile(f"{path}: is an archive: unpack it, and give its .jsonl, .jsonl.gz or .inputlog files")
            return
        # Bytes, decoded line by line: one that is no UTF-8 takes no other with it.
        with opener(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                entry = _entry(line, f"{path}:{number}")
                battles += isinstance(entry, Log)
                yield entry
    except (OSError, EOFError, zlib.error) as error:
        yield BadFile(f"{path}: cannot be read beyond line {number} ({error}): get a whole copy, and import it again")
        return
    if not battles:
        yield BadFile(f"{path}: none of its {number} lines is a battle: give .jsonl, .jsonl.gz or .inputlog files")


_object = msgspec.json.Decoder(dict[str, Any]).decode  # none of what JSON lacks: infinities, half a surrogate pair


def _entry(line: bytes, place: str) -> Log | BadLog:
    try:
        record = _object(line)
        day = date.fromisoformat(record["date"][:10]) if record.get("date") else None
        one, two = record.get("ratings") or (None, None)
        if record["seed"] is None:
            raise ValueError("no seed")  # other dice at each import
        if (record.get("winner") or "tie") not in WINNERS:
            raise ValueError(f"winner is {record['winner']!r}: give p1, p2 or tie")
        return Log(
            id=word(str(record["id"])),  # as it stands in the files' names: two that are one there are one here
            format=str.strip(record["format"]),
            seed=record["seed"],
            choices=record["choices"],
            teams=record.get("teams"),
            seeds=record.get("seeds"),
            winner=record.get("winner"),
            sha256=record.get("lines_sha256"),
            ratings=[None if rating is None else int(rating) for rating in (one, two)],
            date=day,
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return BadLog(f"{place}: not a battle: {type(error).__name__} {error}")


def read_inputlog(path: Path) -> Log | BadFile:
    """One `.inputlog` file as Showdown writes it."""
    found = Log(id=re.sub(r"[^A-Za-z0-9-]", "", path.stem), format="", seed=None, choices=[])
    teams: list[str | None] = [None, None]
    seeds: list[Any] = [None, None]
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            verb, _, rest = line.removeprefix(">").partition(" ")
            if not line.startswith(">") or verb.startswith("version") or verb == "chat":
                continue
            if verb == "start":
                options = _object(rest)
                found.format, found.seed = str.strip(options["formatid"]), options.get("seed")
            elif verb == "player":
                side, _, text = rest.partition(" ")
                # Who takes another name during the battle is written down once more, by name and avatar alone.
                player, seat = _object(text), ("p1", "p2").index(side)
                teams[seat] = player.get("team") or teams[seat]
                seeds[seat] = player.get("seed") or seeds[seat]
                found.ratings[seat] = int(player.get("rating") or 0) or found.ratings[seat]  # 0: not of a ladder
            else:
                found.choices.append(f"{verb} {rest}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return BadFile(f"{path}: not an input log: {type(error).__name__} {error}")
    if not found.format or found.seed is None:
        return BadFile(f"{path}: no >start line with formatid and seed: give a complete input log")
    found.teams, found.seeds = (teams, None) if all(teams) else (None, seeds)
    return found


def read_logs(paths: Sequence[Path]) -> Iterator[Log | BadLog]:
    """All battles of the files given, in order."""
    for path in paths:
        if path.suffix == ".inputlog":
            yield read_inputlog(path)
        else:
            yield from read_jsonl(path)


class Importer:
    """Replays logs over the simulator's processes and writes both views of each.

    out: folder of battle files, and of the journal that lets a stopped run go on where it was.
    """

    def __init__(self, sim: Simulator, out: Path, level: int = 0):
        self.sim = sim
        self.recorder = Recorder(out, run="human", version=sim.version, level=level)
        self.reasons: collections.Counter[str] = collections.Counter()
        self.bad_files: list[str] = []
        self.battles = self.views = self.states = self.blanks = self.unknown = self.undated = 0
        self.journal = out / JOURNAL
        self.done = self._read_journal()
        self.skipped = 0
        self.met: set[str] = set()  # ids of this run

    def _read_journal(self) -> set[str]:
        if not self.journal.exists():
            return set()
        done = set()
        for line in self.journal.read_text(encoding="utf-8").splitlines():
            try:
                note = json.loads(line)
                # What was left out is tried again: the log may have been mended, and its reason is of this report too.
                done |= {word(note["id"])} if "dropped" not in note else set()
            except (ValueError, KeyError, TypeError):
                continue  # the line that was being written when the run was killed
        return done

    def run(self, logs: Iterator[Log | BadLog], batch: int = 4, total: int | None = None) -> None:
        waiting: list[Log] = []
        with progress_bar(total) as bar, open_journal(self.journal) as notes:
            for entry in logs:
                if isinstance(entry, BadFile):
                    self.bad_files.append(str(entry))
                    log.warning("%s", entry)
                elif isinstance(entry, BadLog):
                    self._drop(notes, "", "unreadable", str(entry))
                elif entry.id in self.done:
                    self.skipped += 1
                elif entry.id in self.met:  # files go by the id: the other one's would be written over
                    self._drop(notes, "", "its id stands twice", entry.id)
                elif "@@@" in entry.format:
                    self._drop(notes, entry.id, "custom rules", entry.format)
                else:
                    self.met.add(entry.id)
                    waiting.append(entry)
                if len(waiting) >= batch * len(self.sim.workers):
                    self._replay(waiting, notes)
                    waiting = []
                bar.update()
            self._replay(waiting, notes)

    def _replay(self, logs: list[Log], notes: Any) -> None:
        if not logs:
            return
        for number, entry in enumerate(logs):
            self.sim.command("replay", entry.id, entry.message(), worker=number % len(self.sim.workers))
        by_id, void = {entry.id: entry for entry in logs}, []
        for event in self.sim.step():
            entry = by_id[event.lane]
            # A lost process takes with it all that it held, whichever it was lost over: each is tried alone.
            if event.event == "void" and len(logs) > 1:
                void.append(entry)
            else:
                self._take(entry, event, notes)
        for entry in void:
            self._replay([entry], notes)
        notes.flush()

    def _take(self, entry: Log, event: Event, notes: Any) -> None:
        reason = self._problem(entry, event)
        if reason:
            self._drop(notes, entry.id, reason, event.message or event.problem)
            return
        views = msgspec.json.decode(bytes(event.views), type=list[_View])
        finals = msgspec.json.decode(bytes(event.finals), type=list[msgspec.Raw])
        self.recorder.date = (entry.date or NO_DATE).strftime("%m-%d-%Y")
        for side, (view, final) in enumerate(zip(views, finals, strict=True)):
            meta = {
                "source": "input log",
                "side": side,
                "ratings": entry.ratings,
                "request_legal": [*view.legal, 0],
                "turns": event.turns,
                "simulator": f"pokemon-showdown {self.sim.version}",
                "recorder": "turnwise 1",
            }
            states = [bytes(state) for state in view.states] + [bytes(final)]
            data = content(states, [*view.actions, -1], meta)
            rating = entry.ratings[side]
            self.recorder.write(
                entry.message()["word"],
                entry.id,
                str(int(rating)) if rating else "Unrated",
                (f"p{side + 1}", f"p{2 - side}"),
                event.winner == side,
                data,
            )
            self.views += 1
            self.states += len(states)
            self.blanks += sum(action < 0 for action in view.actions)
        self.unknown += event.unknown
        self.battles += 1
        self.undated += entry.date is None
        notes.write(json.dumps({"id": entry.id}) + "\n")

    @staticmethod
    def _problem(entry: Log, event: Event) -> str:
        """Why a replay is not the battle that was played; empty where it is."""
        if event.event == "void":
            return "the simulator failed on it"
        if event.problem:
            return event.problem
        if event.refused:
            return "a choice was refused (teams of another version?)"
        if entry.sha256 and entry.sha256 != event.sha256:
            return "other lines than were played"
        if entry.winner and entry.winner != WINNERS[event.winner]:
            return "another winner than was played"
        return ""

    def _drop(self, notes: Any, battle: str, reason: str, detail: str) -> None:
        self.reasons[reason] += 1
        log.info("left out %s: %s %s", battle, reason, detail)
        if battle:
            notes.write(json.dumps({"id": battle, "dropped": reason}) + "\n")

    def report(self, seconds: float) -> dict[str, Any]:
        replayed = self.battles + self.skipped
        tried = replayed + sum(n for reason, n in self.reasons.items() if reason not in OUT_OF_REACH)
        return {
            "battles": self.battles,
            "views": self.views,
            "states": self.states,
            "dropped": dict(self.reasons),
            "bad_files": self.bad_files,
            "replayed_share": replayed / tried if tried else None,
            "choices_missing": self.blanks,
            "choices_unknown": self.unknown,
            "undated": self.undated,
            "already_there": self.skipped,
            "seconds": round(seconds, 1),
            "views_per_second": round(self.views / seconds, 2) if seconds else None,
        }


def main(argv: Sequence[str] | None = None) -> int:
    steady_output()
    parser = argparse.ArgumentParser(prog="python -m battle.import_inputlogs", description=first_line(__doc__))
    parser.add_argument("files", nargs="+", type=Path, help=".inputlog, or one battle a line: .jsonl, .jsonl.gz")
    parser.add_argument("--out", type=Path, required=True, help="folder of the battle files")
    parser.add_argument("--processes", type=at_least_one, default=1, help="Node processes")
    parser.add_argument("--json", type=report_file, help="write the report here too")
    parser.add_argument("-v", "--verbose", action="store_true", help="one line for each battle left out")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, format="%(message)s")
    for path in args.files:
        if not path.is_file():
            parser.error(f"{path}: is no file: give .jsonl, .jsonl.gz or .inputlog files")
    started = time.monotonic()
    try:
        with claim(args.out), Simulator(processes=args.processes) as sim, listen() as stop:
            importer = Importer(sim, args.out)
            importer.run(stop.upto(read_logs(args.files)))
    except (BattleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = importer.report(time.monotonic() - started)
    print(json.dumps(report, indent=1))
    if stop.asked:
        # Where a report is looked for, a part of one would pass for the whole.
        print("stopped: the same command goes on with the rest" + (f"; no {args.json}" if args.json else ""))
        return 130
    written = not args.json or write_report(args.json, json.dumps(report, indent=1) + "\n")
    return 0 if written and not report["bad_files"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
