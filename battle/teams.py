"""Teams: folders of `*.{format}_team` files in Showdown's export format, or packed on one line.

Our own stand under `battle/teams/{format}/training` and `…/evaluation`; the latter are for measuring play and are never
recorded from. `--teams DIR` takes anyone's: DIR or DIR/{format}. For a format in which nobody here wrote any, they are
made of the sets that Showdown gives its random battles. Formats that make their own (random battles, factories) have
none.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from battle.errors import InvalidTeam
from battle.simulator import Simulator

log = logging.getLogger(__name__)

OWN = Path(__file__).parent / "teams"
ASSEMBLED = 32  # teams of a format in which nobody wrote any: three quarters for training, the rest for evaluation
FEWEST = 4


@dataclass(frozen=True, slots=True)
class Team:
    name: str
    packed: str | None


def team_files(battle_format: str, source: Path | None, purpose: str) -> list[Path]:
    """Team files of a format. source: a folder of somebody's teams, None: our own for `purpose`
    ("training" or "evaluation")."""
    folders = [OWN / battle_format / purpose] if source is None else [source / battle_format, source]
    for folder in folders:
        found = sorted(folder.glob(f"*.{battle_format}_team")) if folder.is_dir() else []
        if found:
            return found
    where = " or ".join(str(folder) for folder in folders)
    raise InvalidTeam(
        f"no *.{battle_format}_team file in {where}: give --teams a folder that has some, or play another format"
    )


def load_teams(
    sim: Simulator, battle_format: str, source: Path | None = None, purpose: str = "training", strict: bool = True
) -> list[Team]:
    """All teams of a format, passed by Showdown's validator and packed.

    Raises InvalidTeam with the validator's words for the first bad one; with strict=False bad ones are left out as long
    as one is good.
    """
    if sim.makes_teams(battle_format):
        if source is not None:
            log.warning("%s: makes its own teams: those of %s are not for it", battle_format, source)
        return [Team("random", None)]
    if source is None and not (OWN / battle_format).is_dir():
        return _assembled(sim, battle_format, purpose)
    teams, refused = [], None
    for path in team_files(battle_format, source, purpose):
        try:
            teams.append(pack_file(sim, battle_format, path))
        except InvalidTeam as error:
            if strict:
                raise
            refused = error
    if not teams:
        raise refused
    return teams


def pack_file(sim: Simulator, battle_format: str, path: Path) -> Team:
    """The team of one file. Raises InvalidTeam with the validator's words, OSError."""
    return Team(path.name.removesuffix(f".{battle_format}_team"), sim.pack_team(battle_format, _text(path), str(path)))


def _assembled(sim: Simulator, battle_format: str, purpose: str) -> list[Team]:
    """Other line-ups for each purpose; the sets that they are made of are Showdown's in both."""
    packed = sim.assemble_teams(battle_format, ASSEMBLED, FEWEST)
    cut = 3 * len(packed) // 4
    packed = packed[:cut] if purpose == "training" else packed[cut:]
    log.warning("%s: nobody wrote teams: %d made of Showdown's random sets", battle_format, len(packed))
    return [Team(f"assembled{place}", team) for place, team in enumerate(packed)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidTeam(f"{path}: is no UTF-8 text ({error}): save it as UTF-8, or leave it out") from error
