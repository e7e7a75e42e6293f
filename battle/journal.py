"""Which battles of a command are done, so that it goes on where it was stopped: a line of JSON each, as they end."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from battle.errors import BattleError
from battle.interface import Agent
from battle.recorder import run_id
from battle.schedule import seed_of
from model.fingerprint import fingerprint_of

HASHED = ("teams", "models", "acts", "code")  # told by their names alone


class Journal:
    """A head line with the command's fingerprint, then a line for each battle; one that a kill cut short is passed
    over, and a first one too.

    Attributes:
        run: the command's id, part of its battles' names.
        notes: lines of earlier starts.

    option: of the command, that names where the journal lies. Raises BattleError where another command began it, or it
    is no journal, OSError.
    """

    def __init__(self, path: Path, fingerprint: dict[str, Any], option: str):
        self.path, self.option = path, option
        self.notes: list[dict[str, Any]] = []
        self.run = run_id()
        if path.exists() and "\n" in path.read_text(encoding="utf-8"):
            self._read(fingerprint)
        else:
            path.write_text(json.dumps({"run": self.run} | fingerprint) + "\n", encoding="utf-8")

    def _read(self, fingerprint: dict[str, Any]) -> None:
        head, *rest = self.path.read_text(encoding="utf-8").splitlines()
        try:
            found = json.loads(head)
            self.run = found.pop("run")
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise BattleError(f"{self.path}: is no journal of battles: give a fresh {self.option}") from error
        # What an older journal does not say is taken for the same.
        different = [key for key in fingerprint if found.get(key, fingerprint[key]) != fingerprint[key]]
        if different:
            told = ", ".join(_told(key, found[key], fingerprint[key]) for key in different)
            raise BattleError(
                f"{self.path}: was begun with another {told}: repeat that command to go on with it, or give a fresh "
                f"{self.option}"
            )
        for line in rest:
            try:
                note = json.loads(line)
            except ValueError:
                continue
            if isinstance(note, dict) and "battle" in note:
                self.notes.append(note)

    def note(self, file: TextIO, battle: int | str, **facts: Any) -> None:
        """Add a battle to `file`, the journal opened by `open_journal`."""
        file.write(json.dumps({"battle": battle, **facts}) + "\n")
        file.flush()


def remove_unnoted(out: Path, battle_format: str, run: str, done: set[str]) -> set[str]:
    """Take away files of battles that a kill left recorded, wholly or by half, and not noted, by their ids: they are
    played again, and would stand twice under two dates. Returns the ids of the battles whose files lie there."""
    prefix = f"{battle_format}-{run}-"
    there = set()
    for path in (out / battle_format).glob(f"{prefix}*"):
        battle = path.name[len(prefix) :].split("_", 1)[0]
        if battle in done:
            there.add(battle)
        else:
            path.unlink()
    return there


def fingerprint(settings: dict[str, Any], teams: object, agents: Sequence[Agent]) -> dict[str, Any]:
    """What a command's battles hang on: its settings, the very sets, the players' code, the models' weights and how
    they act; a folder of teams, a model's, or a player of one's own may have changed under its name."""
    acts = [[getattr(agent, name, None) for name in ("gamma", "beta", "temperature")] for agent in agents]
    return settings | {
        "teams": seed_of(teams),
        "models": seed_of(*map(weights_of, agents)),
        "acts": acts,
        "code": [code_of(agent) for agent in agents],
    }


def code_of(agent: Agent) -> str:
    """A fingerprint of the file that an agent's class stands in, "" where it stands in none."""
    try:
        return hashlib.sha256(Path(inspect.getfile(type(agent))).read_bytes()).hexdigest()
    except (TypeError, OSError):
        return ""


def weights_of(agent: Agent) -> str:
    """A model's fingerprint, "" for a player without one."""
    network = getattr(agent, "network", None)
    return "" if network is None else fingerprint_of(network.state_dict())


def _told(key: str, before: Any, now: Any) -> str:
    if key in HASHED:
        return key
    said = [" ".join(map(str, value)) if isinstance(value, list) else str(value) for value in (before, now)]
    return f"{key} ({said[0]} → {said[1]})"
