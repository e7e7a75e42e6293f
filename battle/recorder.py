"""Battles as files: both views of each, whole or not at all, in the format that `data/` reads.

Names: `{format}/{battle_id}_{rating}_{player}_vs_{opponent}_{date}_{WIN|LOSS}.json.lz4`. A tie, or a battle cut by the
turn limit, has no winner in its states; both its files are named LOSS (nobody won), and readers believe the states.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import lz4.frame
import msgspec

from battle.errors import BattleError
from battle.interface import decode
from battle.play import Outcome, View
from data.lock import FolderHeld, hold
from data.replacing import replacing


class CannotRecord(BattleError):  # noqa: N818
    """A battle file could not be written (disk full, no permission); nothing half-written is left behind."""


def word(text: str) -> str:
    """A part of a file name: `_` and `/` would break it, so they go."""
    return re.sub(r"[^A-Za-z0-9.:-]+", "", text) or "player"


def run_id() -> str:
    """Unique across hosts and runs: 10 hexadecimal digits."""
    return hashlib.sha256(f"{socket.gethostname()} {os.getpid()} {time.time_ns()} {uuid.uuid4()}".encode()).hexdigest()[
        :10
    ]


def content(states: list[bytes], actions: list[int], meta: dict[str, Any]) -> bytes:
    """The JSON of a battle file from ready state JSON."""
    tail = msgspec.json.encode({"actions": actions, "meta": meta})
    return b'{"states":[' + b",".join(states) + b"]," + tail[1:]


def claim(out: Path) -> TextIO:
    """Hold the folder of a journal for this command; returns its lock, to be kept open until the command ends.

    Raises CannotRecord where another command records there, or nothing can be written."""
    try:
        return hold(out)
    except FolderHeld as error:
        raise CannotRecord(
            f"{out}: another command records there ({error}): wait for its end, or give another --out"
        ) from error
    except OSError as error:
        raise CannotRecord(f"{out}: {error.strerror}: free some space or choose another --out") from error


def open_journal(path: Path) -> TextIO:
    """A journal to add lines to. A last line that a kill cut short is ended, so that the next one stands by itself."""
    cut = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
    file = path.open("a", encoding="utf-8")
    if cut:
        file.write("\n")
    return file


@dataclass
class Recorder:
    """Writes battle files under `root`.

    run: part of every battle id, so that two hosts never write one name. date: MM-DD-YYYY or MM-DD-YYYY-HH:MM:SS; None:
    the moment of writing. level: lz4 compression, 0 fast to 12 small.
    """

    root: Path
    run: str
    version: str
    date: str | None = None
    level: int = 0

    def record(
        self,
        outcome: Outcome,
        players: tuple[str, str] | None = None,
        ratings: tuple[str, str] = ("Unrated", "Unrated"),
    ) -> list[Path]:
        """Both views of a finished battle, none of a void one; the paths written. players, ratings: for their names."""
        if outcome.kind == "void":
            return []
        match = outcome.match
        names = players or (match.agents[0].name, match.agents[1].name)
        if word(names[0]) == word(names[1]):
            # A player against itself: without a mark both files of a tie would have one name.
            names = (f"{names[0]}-1", f"{names[1]}-2")
        written = []
        for side, view in enumerate(outcome.views):
            if len(view.states) < 2:
                continue
            meta = self._meta(outcome, side, view)
            written.append(
                self.write(
                    match.format,
                    f"{self.run}-{match.id}",
                    ratings[side],
                    (names[side], names[1 - side]),
                    outcome.winner == side,
                    content(view.states, view.actions, meta),
                )
            )
        return written

    def _meta(self, outcome: Outcome, side: int, view: View) -> dict[str, Any]:
        match, agent = outcome.match, outcome.match.agents[side]
        lead = outcome.leads[side]
        if lead is not None and not decode(view.states[0])["opponent_teampreview"]:
            lead = None  # the format shows no teams, and the first of the team comes
        return {
            "agent": agent.name,
            "gamma": getattr(agent, "gamma", None),
            "beta": getattr(agent, "beta", None),
            "temperature": getattr(agent, "temperature", None),
            "forced_random": view.explored,
            "seed": match.seed,
            "side": side,
            "team": match.team_names[side],
            "lead": {"rule": match.lead_rule, "place": lead},
            "request_legal": view.legal,
            "outcome": outcome.kind,
            "turns": outcome.turns,
            "refused": len(outcome.refused),
            "simulator": f"pokemon-showdown {self.version}",
            "recorder": "turnwise 1",
        }

    def write(
        self, battle_format: str, battle: str, rating: str, players: tuple[str, str], won: bool, data: bytes
    ) -> Path:
        """One view under its name, atomically. battle: its id without the format, which goes in front.

        players: this view's player, then the opponent. Raises CannotRecord where the disk takes no more.
        """
        date = self.date or time.strftime("%m-%d-%Y-%H:%M:%S")
        me, foe = (word(name) for name in players)
        stem = f"{battle_format}-{word(battle)}_{rating}_{me}_vs_{foe}_{date}_{'WIN' if won else 'LOSS'}"
        path = self.root / battle_format / f"{stem}.json.lz4"
        packed = lz4.frame.compress(data, compression_level=self.level, content_checksum=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(packed)
        except OSError as error:
            raise CannotRecord(f"{path}: {error.strerror}: free some space or choose another folder") from error
        return path
