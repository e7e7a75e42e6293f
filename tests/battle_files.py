"""A seeded generator of valid, varied battle files: a toy game in the universal state schema, for tests.

The same seed gives the same bytes. The player mostly follows a fixed rule that its observation shows (`choose`), so a
policy can partly be learned; `noise` of its choices are random. Battles can be cut short, lack actions, hold forced
switches, sleep, tera, single-move turns, repeated states, an empty legal set, the next battle's first state as a tail,
and the keys of old files only.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import lz4.frame

FORMATS = ("gen1ou", "gen2ou", "gen3ou", "gen4ou", "gen9ou")

# name: (base species, types in alphabetical order, base hp atk def spa spd spe)
SPECIES = {
    "alakazam": ("alakazam", "notype psychic", (55, 50, 45, 135, 95, 120)),
    "blissey": ("blissey", "normal notype", (255, 10, 10, 75, 135, 55)),
    "charizard": ("charizard", "fire flying", (78, 84, 78, 109, 85, 100)),
    "dragonite": ("dragonite", "dragon flying", (91, 134, 95, 100, 100, 80)),
    "exeggutor": ("exeggutor", "grass psychic", (95, 95, 85, 125, 65, 55)),
    "gengar": ("gengar", "ghost poison", (60, 65, 60, 130, 75, 110)),
    "jolteon": ("jolteon", "electric notype", (65, 65, 60, 110, 95, 130)),
    "lapras": ("lapras", "ice water", (130, 85, 80, 85, 95, 60)),
    "machamp": ("machamp", "fighting notype", (90, 130, 80, 65, 85, 55)),
    "rhydon": ("rhydon", "ground rock", (105, 130, 120, 45, 45, 40)),
    "rotomheat": ("rotom", "electric fire", (50, 65, 107, 105, 107, 86)),
    "rotomwash": ("rotom", "electric water", (50, 65, 107, 105, 107, 86)),
    "scizor": ("scizor", "bug steel", (70, 130, 100, 55, 80, 65)),
    "snorlax": ("snorlax", "normal notype", (160, 110, 65, 65, 110, 30)),
    "starmie": ("starmie", "psychic water", (60, 75, 85, 100, 85, 115)),
    "tyranitar": ("tyranitar", "dark rock", (100, 134, 110, 95, 100, 61)),
}
# name: (type, category, power, accuracy, priority, pp)
MOVES = {
    "bodyslam": ("normal", "physical", 85, 1.0, 0, 24),
    "crunch": ("dark", "physical", 80, 1.0, 0, 24),
    "earthquake": ("ground", "physical", 100, 1.0, 0, 16),
    "fireblast": ("fire", "special", 110, 0.85, 0, 8),
    "hydropump": ("water", "special", 110, 0.8, 0, 8),
    "icebeam": ("ice", "special", 90, 1.0, 0, 16),
    "megahorn": ("bug", "physical", 120, 0.85, 0, 16),
    "psychic": ("psychic", "special", 90, 1.0, 0, 16),
    "quickattack": ("normal", "physical", 40, 1.0, 1, 48),
    "recover": ("normal", "status", 0, 1.0, 0, 16),
    "rockslide": ("rock", "physical", 75, 0.9, 0, 16),
    "shadowball": ("ghost", "special", 80, 1.0, 0, 24),
    "thunderbolt": ("electric", "special", 90, 1.0, 0, 24),
    "toxic": ("poison", "status", 0, 0.9, 0, 16),
    "vitalthrow": ("fighting", "physical", 70, 1.0, -1, 16),
}
ITEMS = ("leftovers", "lifeorb", "choiceband", "noitem", "sitrusberry")
ABILITIES = ("levitate", "pressure", "intimidate", "thickfat", "sandstream")
NO_MOVE = {
    "name": "nomove",
    "move_type": "nomove",
    "category": "nomove",
    "base_power": 0,
    "accuracy": 1.0,
    "priority": 0,
    "current_pp": 0,
    "max_pp": 0,
}
BOOSTS = ("atk", "spa", "def", "spd", "spe", "accuracy", "evasion")


@dataclass(frozen=True)
class Style:
    """What a battle is like.

    Args:
        noise: share of choices that are random.
        missing: share of actions that were never revealed.
        cut_short: the battle ends without a result.
        next_battle_tail: the last state is the first of another battle.
        old_schema: keys that old files lack are absent.
        one_fewer_action: the list of actions lacks the last, blank one.
        empty_legal: one forced switch has nobody left to come.
        max_turns: states at most.
    """

    noise: float = 0.1
    missing: float = 0.0
    cut_short: bool = False
    next_battle_tail: bool = False
    old_schema: bool = False
    one_fewer_action: bool = False
    empty_legal: bool = False
    max_turns: int = 120


@dataclass
class Battle:
    """A generated battle: what its file holds, and its name's parts."""

    format: str
    states: list[dict[str, Any]]
    actions: list[int]
    battle_id: str
    rating: str
    player: str
    opponent: str
    date: str
    result: str
    style: Style = field(default_factory=Style)

    @property
    def file_name(self) -> str:
        parts = (self.battle_id, self.rating, self.player, "vs", self.opponent, self.date, self.result)
        return "_".join(parts) + ".json.lz4"

    def json_bytes(self) -> bytes:
        return json.dumps({"states": self.states, "actions": self.actions}).encode()


def draw_style(rng: random.Random) -> Style:
    """A style as they are mixed in real folders."""
    return Style(
        noise=rng.choice((0.0, 0.05, 0.1, 0.2)),
        missing=rng.choice((0.0, 0.0, 0.0, 0.15)),
        cut_short=rng.random() < 0.06,
        next_battle_tail=rng.random() < 0.03,
        old_schema=rng.random() < 0.1,
        one_fewer_action=rng.random() < 0.1,
        empty_legal=rng.random() < 0.05,
        max_turns=rng.choice((12, 40, 80, 160)),
    )


def make_battle(seed: int, format: str | None = None, style: Style | None = None) -> Battle:
    """One battle, the same for the same arguments."""
    rng = random.Random(f"turnwise {seed}")
    name = format or rng.choice(FORMATS)
    mixed = draw_style(rng)
    style = style or mixed
    game = _Game(rng, name, tera=name.startswith("gen9") and not style.old_schema)
    states, actions = game.play(style)
    if style.empty_legal and len(states) > 3:
        _empty_a_legal_set(states, actions, rng)
    if style.next_battle_tail:
        for state in states:
            state["battle_won"] = state["battle_lost"] = False
        states.append(_Game(rng, name, game.tera).state())
        actions = [*actions[:-1], 0, -1]
    for t in range(len(actions) - 1):
        if rng.random() < style.missing:
            actions[t] = -1
    if style.one_fewer_action:
        actions.pop()
    if style.old_schema:
        states = [_old(state) for state in states]
    date = f"{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}-{rng.randint(2014, 2026)}"
    if rng.random() < 0.4:
        date += f"-{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}"
    won = states[-1]["battle_won"] or (not states[-1]["battle_lost"] and rng.random() < 0.5)
    return Battle(
        format=name,
        states=states,
        actions=actions,
        battle_id=f"{name}-{seed:07d}",
        rating=rng.choice(("Unrated", str(rng.randint(1000, 2000)))),
        player=f"Red{seed}",
        opponent=f"Blue{seed}",
        date=date,
        result="WIN" if won else "LOSS",
        style=style,
    )


def write_battle(root: Path, battle: Battle) -> Path:
    """Write one battle where it belongs under `root`."""
    return _write(root, battle.format, battle.file_name, lz4.frame.compress(battle.json_bytes()))


def write_battles(
    root: Path, n: int, seed: int = 0, formats: tuple[str, ...] = FORMATS, style: Style | None = None
) -> list[Path]:
    """Write `n` battles, formats in turn, seeds `seed` … `seed + n − 1`."""
    return [_write(root, *_packed(seed + i, formats[i % len(formats)], style)) for i in range(n)]


@cache  # many tests begin with the same battles
def _packed(seed: int, format: str, style: Style | None) -> tuple[str, str, bytes]:
    battle = make_battle(seed, format, style)
    return battle.format, battle.file_name, lz4.frame.compress(battle.json_bytes())


def _write(root: Path, format: str, file_name: str, packed: bytes) -> Path:
    path = Path(root) / format / file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed)
    return path


def choose(state: dict[str, Any]) -> int:
    """The player's rule, from what the observation shows: away when weak, else the strongest move; tera late."""
    bench = sorted(state["available_switches"], key=lambda pokemon: pokemon["name"])
    own = state["player_active_pokemon"]
    best = max(range(len(bench)), key=lambda i: (bench[i]["hp_pct"], -i)) if bench else None
    if state["forced_switch"]:
        return -1 if best is None else 4 + best
    if best is not None and own["hp_pct"] < 0.25 and bench[best]["hp_pct"] > 0.6:
        return 4 + best
    moves = sorted(own["moves"], key=lambda move: move["name"])
    place = max(range(len(moves)), key=lambda i: (moves[i]["base_power"] * moves[i]["accuracy"], -i))
    return place + 9 if state["can_tera"] and state["opponents_remaining"] <= 3 else place


def legal_ids(state: dict[str, Any]) -> list[int]:
    """Legal actions, by a second implementation of the format's rule."""
    moves = [] if state["forced_switch"] else list(range(min(len(state["player_active_pokemon"]["moves"]), 4)))
    switches = [4 + i for i in range(len(state["available_switches"]))]
    tera = [9 + i for i in moves] if state.get("can_tera") else []
    return moves + switches + tera


def _pokemon(rng: random.Random, name: str, tera: bool) -> dict[str, Any]:
    species, types, (hp, attack, defence, special_attack, special_defence, speed) = SPECIES[name]
    moves = []
    for move in rng.sample(sorted(MOVES), 4):
        kind, category, power, accuracy, priority, points = MOVES[move]
        moves.append(
            {
                "name": move,
                "move_type": kind,
                "category": category,
                "base_power": power,
                "accuracy": accuracy,
                "priority": priority,
                "current_pp": points,
                "max_pp": points,
            }
        )
    return {
        "name": name,
        "hp_pct": 1.0,
        "types": types,
        "item": rng.choice(ITEMS),
        "ability": rng.choice(ABILITIES),
        "lvl": 100,
        "status": "nostatus",
        "effect": "noeffect",
        "moves": moves,
        **{f"{boost}_boost": 0 for boost in BOOSTS},
        "base_atk": attack,
        "base_spa": special_attack,
        "base_def": defence,
        "base_spd": special_defence,
        "base_spe": speed,
        "base_hp": hp,
        "tera_type": rng.choice(types.split()) if tera else "notype",
        "base_species": species,
    }


def _copy(pokemon: dict[str, Any]) -> dict[str, Any]:
    return {**pokemon, "moves": [dict(move) for move in pokemon["moves"]]}


class _Game:
    """The toy game: both sides hit each other in turn; no rule of the real one beyond the schema's."""

    def __init__(self, rng: random.Random, name: str, tera: bool) -> None:
        self.rng = rng
        self.format = name
        self.tera = tera
        self.own = [_pokemon(rng, species, self.tera) for species in rng.sample(sorted(SPECIES), 6)]
        self.other = [_pokemon(rng, species, self.tera) for species in rng.sample(sorted(SPECIES), 6)]
        self.preview = [pokemon["name"] for pokemon in self.other] if int(name[3]) >= 5 else []
        self.shown: dict[str, set[str]] = {pokemon["name"]: set() for pokemon in self.other}
        self.at = self.facing = 0
        self.forced = False
        self.can_tera = self.tera
        self.moved = self.answered = NO_MOVE
        self.weather = "noweather"

    def alive(self, side: list[dict[str, Any]]) -> int:
        return sum(pokemon["hp_pct"] > 0 for pokemon in side)

    def state(self) -> dict[str, Any]:
        own = _copy(self.own[self.at])
        other = _copy(self.other[self.facing])
        other["moves"] = [move for move in other["moves"] if move["name"] in self.shown[other["name"]]]
        other["item"] = "unknownitem"
        other["hp_pct"] = round(other["hp_pct"], 2)
        bench = [_copy(p) for i, p in enumerate(self.own) if i != self.at and p["hp_pct"] > 0]
        preview = list(self.preview)
        self.rng.shuffle(preview)
        return {
            "format": self.format,
            "player_active_pokemon": own,
            "opponent_active_pokemon": other,
            "available_switches": bench,
            "player_prev_move": dict(self.moved),
            "opponent_prev_move": dict(self.answered),
            "opponents_remaining": self.alive(self.other),
            "player_conditions": "noconditions",
            "opponent_conditions": "noconditions",
            "weather": self.weather,
            "battle_field": "nofield",
            "forced_switch": self.forced,
            "battle_won": not self.alive(self.other),
            "battle_lost": not self.alive(self.own),
            "can_tera": self.can_tera and not self.forced,
            "opponent_teampreview": preview,
        }

    def play(self, style: Style) -> tuple[list[dict[str, Any]], list[int]]:
        states = [self.state()]
        actions: list[int] = []
        while not (states[-1]["battle_won"] or states[-1]["battle_lost"]) and len(states) < style.max_turns:
            legal = legal_ids(states[-1])
            noisy = self.rng.random() < style.noise
            action = self.rng.choice(legal) if noisy else choose(states[-1])
            actions.append(action)
            self.step(action)
            states.append(self.state())
        actions.append(-1)
        if style.cut_short:
            states[-1]["battle_won"] = states[-1]["battle_lost"] = False
        return states, actions

    def step(self, action: int) -> None:
        own = self.own[self.at]
        moved = False
        if 4 <= action < 9:
            bench = sorted((p for p in self.own if p is not own and p["hp_pct"] > 0), key=lambda p: p["name"])
            for boost in BOOSTS:
                own[f"{boost}_boost"] = 0
            self.at = next(i for i, pokemon in enumerate(self.own) if pokemon is bench[action - 4])
            if self.forced:
                self.forced = False
                return
        else:
            if action >= 9:
                self.can_tera = False
                own["types"] = " ".join(sorted((own["tera_type"], "notype")))
            self._use(own, sorted(own["moves"], key=lambda move: move["name"])[action % 9])
            moved = True
        self._answer()
        if self.rng.random() < 0.05:
            self.weather = self.rng.choice(("noweather", "raindance", "sandstorm"))
        if self.other[self.facing]["hp_pct"] <= 0 and self.alive(self.other):
            self.facing = next(i for i, pokemon in enumerate(self.other) if pokemon["hp_pct"] > 0)
        if not moved:
            self.moved = NO_MOVE
        own = self.own[self.at]
        if own["hp_pct"] <= 0:
            own["status"] = "fnt"
            self.forced = self.alive(self.own) > 0

    def _use(self, own: dict[str, Any], move: dict[str, Any]) -> None:
        move["current_pp"] = max(0, move["current_pp"] - 1)
        self.moved = move
        other = self.other[self.facing]
        if move["name"] == "recover":
            own["hp_pct"] = min(1.0, own["hp_pct"] + 0.5)
        elif move["name"] == "toxic":
            other["status"] = "tox"
        elif self.rng.random() < move["accuracy"]:
            other["hp_pct"] = max(0.0, other["hp_pct"] - move["base_power"] / 300 * self.rng.uniform(0.7, 1.0))
            if self.rng.random() < 0.1:
                boost = self.rng.choice(BOOSTS)
                own[f"{boost}_boost"] = max(-6, min(6, own[f"{boost}_boost"] + self.rng.choice((-1, 1, 2))))
        if other["hp_pct"] <= 0:
            other["status"] = "fnt"

    def _answer(self) -> None:
        """The opponent's move, if it still stands."""
        other = self.other[self.facing]
        if other["hp_pct"] <= 0:
            self.answered = NO_MOVE
            return
        move = self.rng.choice(other["moves"])
        self.shown[other["name"]].add(move["name"])
        self.answered = move
        own = self.own[self.at]
        own["hp_pct"] = max(0.0, own["hp_pct"] - move["base_power"] / 170 * self.rng.uniform(0.3, 1.0))
        if own["status"] == "nostatus" and self.rng.random() < 0.03:
            own["status"] = self.rng.choice(("slp", "par", "frz", "brn"))
        if other["status"] == "nostatus" and self.rng.random() < 0.02:
            other["status"] = self.rng.choice(("slp", "frz"))


def _empty_a_legal_set(states: list[dict[str, Any]], actions: list[int], rng: random.Random) -> None:
    turn = rng.randrange(1, len(states) - 1)
    states[turn]["forced_switch"] = True
    states[turn]["available_switches"] = []
    states[turn]["can_tera"] = False
    actions[turn] = rng.choice((-1, 0))


def _old(state: dict[str, Any]) -> dict[str, Any]:
    state = {key: value for key, value in state.items() if key not in ("can_tera", "opponent_teampreview")}
    for key in ("player_active_pokemon", "opponent_active_pokemon"):
        state[key] = _old_pokemon(state[key])
    state["available_switches"] = [_old_pokemon(pokemon) for pokemon in state["available_switches"]]
    return state


def _old_pokemon(pokemon: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in pokemon.items() if key not in ("tera_type", "base_species")}
