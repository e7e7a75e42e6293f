"""Players by name: a baseline's, the searching player, or a saved model's folder with options.

`random`, `type_switch`, `search:plies=2`, `checkpoints/run/best`, `checkpoints/run/best:temperature=1.2,gamma=0.99`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from battle.baselines import BossAgent, MostDamageAgent, RandomAgent, TypeSwitchAgent
from battle.errors import BattleError
from battle.interface import Agent
from battle.planner import PlannerAgent
from battle.recorder import word
from data.imports import all_at_once

SIMPLE_HEURISTICS = "simple_heuristics"
SEARCH = "search"
BASELINES: dict[str, Callable[[], Agent]] = {
    agent.name: agent for agent in (RandomAgent, BossAgent, MostDamageAgent, TypeSwitchAgent, PlannerAgent)
}
ALL_BASELINES = (*BASELINES, SIMPLE_HEURISTICS)


# What may stand behind a name: for a model, for the searching player, and (weight) for whoever is in a pool. The
# baselines have nothing to set.
_MODEL = {"temperature": float, "gamma": float, "beta": float, "seed": int, "device": str}
_SEARCH = {"plies": int, "determinizations": int, "seed": int}


class UnknownPlayer(BattleError):  # noqa: N818
    """A name that is neither a baseline nor a saved model."""


@dataclass(frozen=True)
class PlayerSpec:
    """label: the name in tables and files. source: baseline, folder, or name on the Hub. options: for its agent."""

    label: str
    source: str
    options: tuple[tuple[str, Any], ...] = ()
    weight: float = 1.0


def parse_player(text: str) -> PlayerSpec:
    """`[label=]source[:key=value,…]`; `weight` among the options is the share of battles in a pool."""
    label, source = "", text
    before, equals, after = text.partition("=")
    # The `=` may be of an option, or of a folder as runs/lr=0.1 or lr=0.1/model.
    if equals and not {":", "/"} & set(before) and not Path(_parted(text)[0]).exists():
        label, source = before, after
    source, tail = _parted(source)
    options: dict[str, Any] = {}
    own = _SEARCH if source == SEARCH else {} if source in ALL_BASELINES else _MODEL
    known = own | {"weight": float}
    for part in filter(None, tail.split(",")):
        key, found, value = part.partition("=")
        if not found or key not in known:
            raise UnknownPlayer(f"player {text!r}: option {part!r} is not one of {'=, '.join(known)}=")
        try:
            options[key] = known[key](value)
            bad = known[key] is float and not math.isfinite(options[key])
        except ValueError:
            bad = True
        if bad:
            raise UnknownPlayer(f"player {text!r}: {key}={value!r} is no number")
    weight = options.pop("weight", 1.0)
    return PlayerSpec(label or Path(source).name or source, source, tuple(sorted(options.items())), weight)


def parse_players(texts: Sequence[str]) -> list[PlayerSpec]:
    """`parse_player` of each, every player under a label of its own: folders of one name get as much of their path in
    front as tells them apart ("new/model", "old/model"). Labels that files write alike ("a_b", "ab") are left to equal
    sources and options alone. Raises UnknownPlayer where players would have one name all the same."""
    parsed = [parse_player(text) for text in texts]
    specs = [_apart(spec, parsed) for spec in parsed]
    known: dict[str, PlayerSpec] = {}
    for spec in specs:
        name = word(spec.label)
        other = known.setdefault(name, spec)
        if (other.source, other.options) != (spec.source, spec.options):
            raise UnknownPlayer(
                f"players {other.source!r} and {spec.source!r}: both would be called {name!r}: give one of them "
                f"another label, as other={spec.source}"
            )
    return specs


def _parted(text: str) -> tuple[str, str]:
    """Source and options, between which the first `:` stands; but one in the name of a folder that is there is its."""
    places = [place for place, letter in enumerate(text) if letter == ":"] or [len(text)]
    at = next((place for place in (len(text), *reversed(places)) if Path(text[:place]).exists()), places[0])
    return text[:at], text[at + 1 :]


def _apart(spec: PlayerSpec, specs: list[PlayerSpec]) -> PlayerSpec:
    """The spec, its folder's name made longer where another source has the same one."""
    parts = Path(spec.source).parts
    others = [Path(s.source).parts for s in specs if s.label == spec.label and s.source != spec.source]
    if not others or spec.label != parts[-1]:
        return spec
    length = 1
    while length < len(parts) and any(other[-length:] == parts[-length:] for other in others):
        length += 1
    return replace(spec, label=str(Path(*parts[-length:])))


def make_player(spec: PlayerSpec) -> Agent:
    """The agent of a spec. Raises UnknownPlayer or FileNotFoundError where there is none of that name, ValueError where
    a model's stamps (observation space, vocabulary, schema) do not fit, BattleError where the searching player's
    options do not."""
    if spec.source in BASELINES:
        agent = BASELINES[spec.source]()
    elif spec.source == SIMPLE_HEURISTICS:
        from battle.pokeenv_agent import SimpleHeuristicsAgent

        agent = SimpleHeuristicsAgent()
    elif spec.source == SEARCH:
        from battle.search import SearchAgent

        agent = SearchAgent(**dict(spec.options))
    elif Path(spec.source).exists() or spec.source.count("/") == 1:  # NAME/MODEL of the Hub
        with all_at_once():
            from battle.agents import TurnwiseAgent

        agent = TurnwiseAgent.from_pretrained(spec.source, **dict(spec.options))
    else:
        raise UnknownPlayer(
            f"player {spec.source!r}: no such folder and no baseline of that name: name one of "
            f"{', '.join(ALL_BASELINES)}, {SEARCH}, a saved model's folder, or NAME/MODEL of the Hub"
        )
    agent.name = spec.label
    return agent
