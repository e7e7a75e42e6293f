"""The table of cases in `test_view_cases.py`: a small standing battle, and how a row of it is read."""

from __future__ import annotations

import json
from typing import Any

from battle.simulator import Simulator

OWN = {
    "Mine": ("Snorlax, M", ["bodyslam", "earthquake", "rest", "surf"], "leftovers", "immunity", "Ghost"),
    "Gengar": ("Gengar, F", ["thunderbolt", "hypnosis", "explosion", "psychic"], "", "levitate", "Fairy"),
    "Zapdos": ("Zapdos", ["thunderbolt", "drillpeck", "thunderwave", "agility"], "lumberry", "pressure", "Steel"),
    "Dragonite": ("Dragonite, M", ["icebeam", "wrap", "fireblast", "agility"], "", "innerfocus", "Normal"),
    "Tauros": ("Tauros, M", ["bodyslam", "hyperbeam", "blizzard", "earthquake"], "choiceband", "intimidate", "Ground"),
    "Chansey": ("Chansey, F", ["softboiled", "icebeam", "toxic", "reflect"], "", "naturalcure", "Rock"),
}
FORMATS = {1: "gen1ou", 2: "gen2ou", 3: "gen3ou", 4: "gen4ou", 9: "gen9ou"}
FOE = "Starmie"


def request(gen: int) -> dict[str, Any]:
    """A request for a move in the standing battle, for a row to change."""
    pokemon = []
    for name, (details, moves, item, ability, tera) in OWN.items():
        entry = {
            "ident": f"p1: {name}",
            "details": details,
            "condition": "400/400",
            "active": name == "Mine",
            "stats": {"atk": 300, "def": 200, "spa": 200, "spd": 250, "spe": 100},
            "moves": list(moves),
            "baseAbility": ability if gen >= 3 else "noability",
            "item": item if gen >= 2 else "",
            "pokeball": "pokeball",
            "ability": ability if gen >= 3 else "noability",
        }
        if gen == 9:
            entry |= {"teraType": tera, "terastallized": "", "commanding": False, "reviving": False}
        pokemon.append(entry)
    asked = [
        {"move": name, "id": name, "pp": 10, "maxpp": 16, "target": "normal", "disabled": False}
        for name in pokemon[0]["moves"]
    ]
    active: dict[str, Any] = {"moves": asked}
    if gen == 9:
        active["canTerastallize"] = "Ghost"
    return {"active": [active], "side": {"name": "A", "id": "p1", "pokemon": pokemon}}


def preamble(gen: int) -> list[str]:
    lines = [
        "|player|p1|A|1|",
        "|player|p2|B|2|",
        "|teamsize|p1|6",
        "|teamsize|p2|6",
        "|gametype|singles",
        f"|gen|{gen}",
        f"|tier|[Gen {gen}] OU",
        "|",
    ]
    if gen == 9:
        lines += [f"|poke|p1|{details}|item" for details, *_ in OWN.values()]
        lines += [f"|poke|p2|{name}|item" for name in (FOE, "Alakazam, M", "Exeggutor, F", "Lapras, F", "Urshifu-*")]
        lines += ["|poke|p2|Zoroark, M|", "|teampreview"]
    return [
        *lines,
        "|start",
        "|switch|p1a: Mine|Snorlax, M|400/400",
        f"|switch|p2a: Foe|{FOE}|100/100",
        "|turn|1",
    ]


def apply(asked: dict[str, Any], change: str) -> None:
    """`path=JSON` onto a request; `path-` takes the key away; `active to N` puts the team's Nth in front, on the field.

    Paths lead through keys and list places by dots.
    """
    if change.startswith("active to "):
        team, place = asked["side"]["pokemon"], int(change[10:])
        team[0]["active"], team[place]["active"] = False, True
        team[0], team[place] = team[place], team[0]
        return
    path, _, value = change.partition("=")
    *way, last = path.rstrip("-").split(".")
    place: Any = asked
    for key in way:
        place = place[int(key)] if isinstance(place, list) else place[key]
    if path.endswith("-"):
        del place[last]
    elif isinstance(place, list):
        place[int(last)] = json.loads(value)
    else:
        place[last] = json.loads(value)


def command(number: int, gen: int, lines: list[str], changes: list[str]) -> tuple[str, list[Any]]:
    """The bridge's commands for one row: the changes are to the last request; `(ask)` puts a plain one in between,
    `(ask CHANGE & CHANGE)` one with changes of its own."""
    over = bool(lines) and lines[-1].split("|")[0] in ("win", "tie")
    parts: list[list[str]] = [preamble(gen), []]
    requests: list[str | None] = [changed(gen, [])]
    for line in lines:
        if line.startswith("(ask"):
            requests.append(changed(gen, line[5:-1].split(" & ") if line[5:-1] else []))
            parts.append([])
        else:
            parts[-1].append(f"|{line}")
    requests.append(None if over else changed(gen, changes))
    return f"case{number}", [[FORMATS[gen], block, asked] for block, asked in zip(parts, requests, strict=True)]


def changed(gen: int, changes: list[str]) -> str:
    asked = request(gen)
    for change in changes:
        apply(asked, change)
    return json.dumps(asked)


def run(sim: Simulator, rows: list[tuple[int, list[str], list[str]]]) -> list[Any]:
    """The last event of every row: (gen, lines, changes)."""
    last: dict[str, Any] = {}
    for number, (gen, lines, changes) in enumerate(rows):
        lane, feeds = command(number, gen, lines, changes)
        for feed in feeds:
            sim.command("feed", lane, *feed)
    for event in sim.step():
        last[event.lane] = event
    return [last[f"case{number}"] for number in range(len(rows))]


def look(state: dict[str, Any], path: str) -> Any:
    """`me.effect`, `foe.moves.0.name`, `sw1.hp_pct`, `weather` …; sw by alphabetical place."""
    head, *rest = path.split(".")
    if head == "me":
        value: Any = state["player_active_pokemon"]
    elif head == "foe":
        value = state["opponent_active_pokemon"]
    elif head.startswith("sw") and head[2:].isdigit():
        value = sorted(state["available_switches"], key=lambda p: p["name"])[int(head[2:])]
    else:
        value = state[head]
    for key in rest:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value
