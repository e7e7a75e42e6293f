# ruff: noqa: E501 (a table: one case a line)
"""What a player saw → the battle that the searching player plays on: a row of lines and changes, as in
`tests/battle/test_view_cases.py`, and what then stands on the simulator."""

from __future__ import annotations

import json

import pytest

from tests.battle.node_script import run_script
from tests.battle.table import command

SCRIPT = """
const { Likely, PRNG } = require('./node/likely');
const { Line } = require('./node/line');
const { Position } = require('./node/position');
const { View } = require('./node/view');
const likelies = new Map();
const factsOf = (p) => ({ name: p.species.name, level: p.level, gender: p.gender, hp: p.hp, maxhp: p.maxhp, size: p.baseMaxhp, status: p.status, fainted: p.fainted,
  asleep: p.statusState.time, stage: p.volatiles.residualdmg?.counter ?? p.statusState.stage, moves: p.moves, item: p.item,
  ability: p.ability, tera: p.teraType, can: Boolean(p.canTerastallize), types: p.getTypes(), stats: p.storedStats,
  atk: p.modifiedStats?.atk ?? p.getStat('atk', false, true), spe: p.modifiedStats?.spe ?? p.getStat('spe', false, true), boosts: p.boosts, crit: p.getStat('atk', true),
  volatiles: Object.keys(p.volatiles).sort(), seeder: p.volatiles.leechseed?.sourceSlot, turns: p.activeTurns });
const sideOf = (side) => ({ left: side.pokemonLeft, tera: Boolean(side.activeRequest.active?.[0]?.canTerastallize), choices: (side.activeRequest.active ?? [{ moves: [] }])[0].moves.map((m) => m.id),
  conditions: Object.fromEntries(Object.entries(side.sideConditions).map(([id, state]) => [id, state.layers ?? 1])) });
console.log(JSON.stringify(JSON.parse(require('fs').readFileSync(0)).map(({ teams, feeds, lead }) => {
  const format = feeds[0][0];
  const view = new View((message) => { throw new Error(message); });
  view.format = format;
  let request;
  for (const [, lines, asked] of feeds) {
    for (const text of lines) view.feed(new Line(text));
    view.ask(request = JSON.parse(asked));
  }
  if (!likelies.has(format)) likelies.set(format, new Likely(format, teams));
  const battle = new Position(view, request, likelies.get(format)).build(new PRNG('1,2,3,4'), lead);
  const [mine, theirs] = battle.sides;
  return { turn: battle.turn, asks: battle.requestState, weather: battle.field.weather, terrain: battle.field.terrain,
    rooms: Object.keys(battle.field.pseudoWeather).filter((id) => !id.endsWith('mod')), mine: sideOf(mine), theirs: sideOf(theirs),
    ...Object.fromEntries(mine.pokemon.map((p, n) => [`me${n}`, factsOf(p)])),
    ...Object.fromEntries(theirs.pokemon.map((p, n) => [`foe${n}`, factsOf(p)])) };
})));
"""
THEIRS = "]".join(
    f"{name}||{item}|{ability}|{moves}||||||100|"
    for name, item, ability, moves in (
        ("Starmie", "leftovers", "naturalcure", "surf,thunderbolt,recover,blizzard"),
        ("Alakazam", "lumberry", "synchronize", "psychic,recover,thunderwave,reflect"),
        ("Exeggutor", "leftovers", "chlorophyll", "psychic,explosion,sleeppowder,stunspore"),
        ("Lapras", "leftovers", "shellarmor", "surf,blizzard,thunderbolt,sing"),
        ("Rhydon", "leftovers", "rockhead", "earthquake,rockslide,substitute,bodyslam"),
        ("Jolteon", "leftovers", "voltabsorb", "thunderbolt,thunderwave,batonpass,rest"),
    )
)
OLD, ALL, NEW = (1, 2, 3, 4), (1, 2, 3, 4, 9), (9,)
ALAKAZAM = "switch|p2a: Alakazam|Alakazam, M|100/100"


def row(name, gens, lines, expected, *changes, lead=0):
    split = [line.strip() for line in lines.split(" ; ")] if lines else []
    return [(f"{name}-gen{gen}", gen, split, list(changes), lead, expected) for gen in gens]


CASES = [
    row("opening", ALL, "", {"turn": 1, "asks": "move", "weather": "", "terrain": "", "rooms": [], "mine.conditions": {}, "mine.left": 6, "theirs.left": 6,
        "me0.name": "Snorlax", "me0.hp": 400, "me0.maxhp": 400, "me0.moves": ["bodyslam", "earthquake", "rest", "surf"], "me0.turns": 1, "me1.name": "Gengar", "me5.name": "Chansey",
        "mine.choices": ["bodyslam", "earthquake", "rest", "surf"], "me0.stats": {"atk": 300, "def": 200, "spa": 200, "spd": 250, "spe": 100}, "me0.atk": 300, "me0.crit": 300, "me0.gender": "M", "me1.gender": "F",
        "foe0.name": "Starmie", "foe0.moves": ["surf", "thunderbolt", "recover", "blizzard"], "foe0.status": "", "foe0.volatiles": []}),
    row("what-i-have", NEW, "", {"me0.item": "leftovers", "me0.ability": "immunity", "mine.tera": True, "me0.tera": "Ghost", "me2.item": "lumberry", "me0.can": True, "foe0.can": True, "foe0.item": "leftovers"}),
    row("hurt", ALL, "-damage|p2a: Foe|43/100", {"foe0.hp": pytest.approx(0.43 * 261, abs=1), "me0.hp": 133, "me1.hp": 90, "me1.maxhp": 300, "me1.size": 300},
        'side.pokemon.0.condition="133/400"', 'side.pokemon.1.condition="90/300"'),
    row("barely-alive", ALL, "-damage|p2a: Foe|1/1000", {"foe0.hp": 1, "foe0.fainted": False, "theirs.left": 6}),
    row("fallen", ALL, f"faint|p2a: Foe ; {ALAKAZAM}", {"foe0.name": "Alakazam", "foe1.name": "Starmie", "foe1.hp": 0, "foe1.fainted": True, "foe1.status": "fnt", "theirs.left": 5,
        "me3.hp": 0, "me3.fainted": True, "me3.status": "fnt", "mine.left": 5, "me0.hp": 400}, 'side.pokemon.3.condition="0 fnt"'),
    row("nothing-left", ALL, f"-damage|p2a: Foe|0 ; {ALAKAZAM}", {"foe1.name": "Starmie", "foe1.hp": 0, "foe1.fainted": True, "theirs.left": 5}),
    row("only-previewed", NEW, "", {"foe1.name": "Alakazam", "foe1.hp": 251, "foe1.status": "", "foe4.name": "Urshifu", "foe5.name": "Zoroark"}),
    # Statuses, how long they have been, and what they do.
    row("status", ALL, "-status|p2a: Foe|par", {"foe0.status": "par", "me0.status": "brn", "me2.status": "par", "me1.status": ""}, 'side.pokemon.0.condition="400/400 brn"', 'side.pokemon.2.condition="400/400 par"'),
    row("burnt-in-old-games", (1,), "", {"me0.atk": 150}, 'side.pokemon.0.condition="400/400 brn"'),
    row("lamed-in-old-games", (1,), "", {"me0.spe": 25, "me2.spe": 25}, 'side.pokemon.0.condition="400/400 par"', 'side.pokemon.2.condition="400/400 par"'),
    row("toxic-on-the-field", ALL, "-status|p2a: Foe|tox ; -damage|p2a: Foe|94/100 tox|[from] psn ; upkeep ; turn|2 ; -damage|p2a: Foe|82/100 tox|[from] psn ; upkeep ; turn|3", {"foe0.status": "tox", "foe0.stage": 2}),
    row("just-asleep", (3, 4, 9), "-status|p1a: Mine|slp", {"me0.status": "slp", "me0.fainted": False}, 'side.pokemon.0.condition="400/400 slp"'),
    row("asleep", (3, 4, 9), "-status|p1a: Mine|slp ; cant|p1a: Mine|slp", {"me0.status": "slp"}, 'side.pokemon.0.condition="400/400 slp"'),
    row("long-asleep", (3, 4, 9), "-status|p1a: Mine|slp ; cant|p1a: Mine|slp ; cant|p1a: Mine|slp ; cant|p1a: Mine|slp ; cant|p1a: Mine|slp", {"me0.asleep": 1}, 'side.pokemon.0.condition="400/400 slp"'),
    row("toxic-on-the-bench", (3, 4, 9), "", {"me5.status": "tox", "me5.stage": 0}, 'side.pokemon.5.condition="399/400 tox"'),
    # Boosts and volatiles of those on the field.
    row("boosts", (2, 3, 4, 9), "-boost|p1a: Mine|atk|2 ; -unboost|p2a: Foe|spe|1 ; -boost|p2a: Foe|evasion|1",
        {"me0.boosts.atk": 2, "me0.boosts.spe": 0, "me0.atk": 600, "foe0.boosts.spe": -1, "foe0.boosts.evasion": 1, "foe0.boosts.atk": 0}),
    row("boosts-of-old", (1,), "-boost|p1a: Mine|atk|2", {"me0.boosts.atk": 2, "me0.atk": 600}),
    row("volatiles", (2, 3, 4, 9), "-start|p1a: Mine|Substitute ; -start|p2a: Foe|move: Leech Seed ; -start|p2a: Foe|confusion",
        {"me0.volatiles": ["substitute"], "foe0.volatiles": ["confusion", "leechseed"], "foe0.seeder": "p1a"}),
    row("unknown-volatiles-are-left-out", (3, 4, 9), "-start|p2a: Foe|perish3 ; -start|p2a: Foe|move: Taunt", {"foe0.volatiles": ["taunt"]}),
    # Weather, field, side conditions.
    row("what-nobody-knows-is-passed-over", (3, 4, 9), "-fieldstart|move: Brand New Room ; -sidestart|p1: A|Brand New Trap ; -sidestart|p1: A|Spikes", {"rooms": [], "mine.conditions": {"spikes": 1}}),
    row("weather", ALL, "-weather|RainDance", {"weather": "raindance"}),
    row("terrain", NEW, "-fieldstart|move: Grassy Terrain ; -fieldstart|move: Trick Room", {"terrain": "grassyterrain", "rooms": ["trickroom"]}),
    row("sides", (3, 4, 9), "-sidestart|p1: A|Spikes ; -sidestart|p1: A|Spikes ; -sidestart|p2: B|Reflect", {"mine.conditions": {"spikes": 2}, "theirs.conditions": {"reflect": 1}}),
    row("weather-that-ended", NEW, "-weather|none", {"weather": "", "foe0.name": "Starmie"}, 'side.pokemon.0.details="Pelipper, M"', 'side.pokemon.0.ability="drizzle"', 'side.pokemon.0.baseAbility="drizzle"'),
    row("terrain-that-ended", NEW, "", {"terrain": ""}, 'side.pokemon.0.ability="grassysurge"', 'side.pokemon.0.baseAbility="grassysurge"'),
    row("intimidated-no-more", NEW, "", {"foe0.boosts.atk": 0}, 'side.pokemon.0.ability="intimidate"', 'side.pokemon.0.baseAbility="intimidate"'),
    # Terastallization.
    row("tera-mine", NEW, "-terastallize|p1a: Mine|Ghost", {"me0.types": ["Ghost"], "me0.can": False, "me1.can": False, "foe0.can": True, "mine.tera": False},
        "active.0.canTerastallize-", 'side.pokemon.0.terastallized="Ghost"'),
    row("tera-foe", NEW, "-terastallize|p2a: Foe|Steel", {"foe0.types": ["Steel"], "foe0.tera": "Steel", "foe0.can": False, "foe1.can": False, "me0.can": True}),
    # What was shown of the opponent.
    row("shown-moves", ALL, "move|p2a: Foe|Psychic|p1a: Mine", {"foe0.moves": ["psychic", "surf", "thunderbolt", "recover"]}),
    row("unknown-move", ALL, "move|p2a: Foe|Brand New Move|p1a: Mine", {"foe0.moves": ["surf", "thunderbolt", "recover", "blizzard"]}),
    row("knocked-off", (3, 4, 9), "-enditem|p2a: Foe|Leftovers|[from] move: Knock Off|[of] p1a: Mine", {"foe0.item": ""}),
    row("eaten", (3, 4, 9), "-enditem|p2a: Foe|Sitrus Berry|[eat]", {"foe0.item": ""}),
    row("shown-item", (3, 4, 9), "-item|p2a: Foe|Choice Band|[from] move: Trick", {"foe0.item": "choiceband"}),
    row("swapped-item", (3, 4, 9), "-enditem|p2a: Foe|Sitrus Berry|[eat] ; -item|p2a: Foe|Choice Band|[from] move: Trick", {"foe0.item": "choiceband"}),
    row("shown-ability", (3, 4, 9), "-ability|p2a: Foe|Illuminate", {"foe0.ability": "illuminate"}),
    row("copied-moves-are-not-its-own", (2, 3, 4), "switch|p2a: Blob|Ditto|100/100 ; -transform|p2a: Blob|p1a: Mine", {"foe0.name": "Ditto", "foe0.moves": ["transform"]}),
    row("a-level-that-all-have", (3, 4), "switch|p2a: Bird|Zapdos, L77|100/100", {"foe2.level": 77, "foe5.level": 77}),
    row("fewer-than-six", OLD, "teamsize|p2|4", {"theirs.left": 4}),
    row("gender-of-the-foe", (2, 3, 4, 9), ALAKAZAM, {"foe0.gender": "M"}),
    row("own-level", ALL, "", {"me1.level": 50}, 'side.pokemon.1.details="Gengar, L50, F"'),
    row("a-fallen-one-has-a-size", (3, 4, 9), "", {"me3.maxhp": 323}, 'side.pokemon.3.condition="0 fnt"'),
    row("level", (3, 4, 9), "switch|p2a: Bird|Zapdos, L77|100/100", {"foe0.level": 77, "foe0.name": "Zapdos", "foe1.name": "Starmie", "foe1.level": 100}),
    # Who comes in after a faint.
    row("lead", ALL, "-boost|p1a: Mine|atk|2 ; -start|p1a: Mine|Substitute ; faint|p1a: Mine", {"me0.name": "Zapdos", "me1.name": "Snorlax", "me1.fainted": True, "me0.turns": 0, "foe0.turns": 1,
        "me0.boosts.atk": 0, "me0.volatiles": [], "mine.left": 5, "me0.moves": ["thunderbolt", "drillpeck", "thunderwave", "agility"], "me3.name": "Dragonite"},
        "active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"', lead=2),
    row("pivot", (4, 9), "-boost|p1a: Mine|atk|2 ; move|p1a: Mine|U-turn|p2a: Foe", {"me0.name": "Zapdos", "me0.boosts.atk": 0, "me0.turns": 0, "me1.hp": 400, "mine.left": 6},
        "active-", "forceSwitch=[true]", lead=2),
    row("the-fallen-foe-stands-in-front", ALL, f"{ALAKAZAM} ; faint|p1a: Mine ; faint|p2a: Alakazam", {"foe0.name": "Alakazam", "foe0.fainted": True, "foe1.name": "Starmie"},
        "active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"', lead=1),
    row("both-fainted", ALL, "faint|p1a: Mine ; faint|p2a: Foe", {"me0.name": "Gengar", "foe0.name": "Starmie", "foe0.fainted": True, "theirs.left": 5},
        "active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"', lead=1),
    row("late", ALL, "turn|31", {"turn": 31}),
]  # fmt: skip
ROWS = [case for group in CASES for case in group]


@pytest.fixture(scope="module")
def built():
    rows = [
        {"feeds": command(n, gen, lines, changes)[1], "lead": lead, "teams": [THEIRS]}
        for n, (_, gen, lines, changes, lead, _) in enumerate(ROWS)
    ]
    return json.loads(run_script(SCRIPT, rows))


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[name for name, *_ in ROWS])
def test_case(built, number):
    for path, value in ROWS[number][-1].items():
        found = built[number]
        for key in path.split("."):
            found = found[key]
        assert found == value, path


@pytest.mark.parametrize("gen", [3, 4, 9])
def test_who_has_slept_sleeps_the_less(built, gen):
    names = [name for name, *_ in ROWS]
    just, since = (built[names.index(f"{name}-gen{gen}")]["me0"]["asleep"] for name in ("just-asleep", "asleep"))
    assert since == just - 1 > 0
