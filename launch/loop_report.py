"""The loop's rounds beside each other: `python -m launch.loop_report OUT --command "…" [--name loop]`.

Reads OUT/round*/play.json, prints and writes OUT/loop.json: per round the win rate against random in each format and
against the whole fixed pool, and what each round gained on the first, with 95% intervals. With --name it becomes a
record.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from battle.rating import wilson
from data.terminal import first_line
from launch.record import write_record


def pooled(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Battles, win rate (a tie is half a win; None where all battles were void) and its Wilson interval, of rows of an
    evaluation."""
    battles = sum(row["battles"] for row in rows)
    points = sum(row["wins"] + row["ties"] / 2 for row in rows)
    return {
        "battles": battles,
        "win_rate": round(points / battles, 4) if battles else None,
        "interval95": [round(bound, 4) for bound in wilson(points, battles)],
    }


def grouped(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """`pooled` for each value of a column."""
    return {
        value: pooled([row for row in rows if row[key] == value]) for value in dict.fromkeys(row[key] for row in rows)
    }


def gain(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Difference of two win rates with Newcombe's interval (1998, method 10: from both Wilson intervals).

    The rounds meet the same teams and dice, so their battles are paired and this interval is wider than it need be.
    """
    a, b = after["win_rate"], before["win_rate"]
    (a_low, a_high), (b_low, b_high) = after["interval95"], before["interval95"]
    low = a - b - math.hypot(a - a_low, b_high - b)
    high = a - b + math.hypot(a_high - a, b - b_low)
    return {"gain": round(a - b, 4), "interval95": [round(low, 4), round(high, 4)]}


def rate_told(row: dict[str, Any], form: str) -> str:
    """A row's win rate, – where it has none, as `battle.evaluate` prints it."""
    return "–" if row["win_rate"] is None else f"{row['win_rate']:{form}}"


def report(out: Path) -> dict[str, Any]:
    """Of a loop's folder. Raises FileNotFoundError where no round was evaluated."""
    files = sorted(out.glob("round*/play.json"), key=lambda path: int(re.sub(r"\D", "", path.parent.name)))
    if not files:
        raise FileNotFoundError(f"{out}: no round with a play.json: run launch/loop.sh first")
    found: dict[str, Any] = {}
    for path in files:
        rows = json.loads(path.read_text(encoding="utf-8"))["results"]
        found[path.parent.name] = {
            "pool": pooled(rows),
            "by_format": grouped(rows, "format"),
            "by_opponent": grouped(rows, "opponent"),
            "against_random": grouped([row for row in rows if row["opponent"] == "random"], "format"),
            "rows": rows,
        }
    first, *later = found
    for name in later:
        if None in (found[first]["pool"]["win_rate"], found[name]["pool"]["win_rate"]):
            continue
        found[name]["gain_on_the_first"] = gain(found[first]["pool"], found[name]["pool"])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m launch.loop_report", description=first_line(__doc__))
    parser.add_argument("out", type=Path, help="the loop's folder")
    parser.add_argument("--command", default="launch/loop.sh", help="the command that ran the loop, for the record")
    parser.add_argument("--name", help="write a record of this name, too")
    args = parser.parse_args(argv)
    try:
        found = report(args.out)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    (args.out / "loop.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, of in found.items():
        low, high = of["pool"]["interval95"]
        rate = rate_told(of["pool"], ".1%")
        line = f"{name}: {rate} [{low:.1%}, {high:.1%}] of {of['pool']['battles']} against the pool"
        if "gain_on_the_first" in of:
            low, high = of["gain_on_the_first"]["interval95"]
            line += f", {of['gain_on_the_first']['gain']:+.1%} [{low:+.1%}, {high:+.1%}] on the first"
        print(line)
        print("  random: " + ", ".join(f"{f} {rate_told(r, '.0%')}" for f, r in of["against_random"].items()))
    if args.name:
        print(write_record(args.name, args.command, found, {}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
