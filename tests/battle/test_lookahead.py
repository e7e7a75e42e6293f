# ruff: noqa: E501 (tables: one case a line)
"""What the searching player makes of a battle: what an attack threatens, what a side holds, what it then does."""

import json

import pytest

from tests.battle.node_script import run_script
from tests.battle.table import command

SCRIPT = """
const { Battle, PRNG } = require('pokemon-showdown');
const { after, threat, worth } = require('./node/search');
const { quiet } = require('./node/twin');
const sets = (names) => names.map((text) => { const [species, moves, ability] = text.split('/');
  return { name: species, species, moves: moves.split(','), ability: ability ?? '', level: 100, evs: {}, nature: 'Serious' }; });
const rows = JSON.parse(require('fs').readFileSync(0));
const results = {};
for (const [name, { gen, mine, theirs, change, turn }] of Object.entries(rows)) {
  const battle = new Battle({ formatid: `gen${gen}customgame`, seed: '1,2,3,4' });
  battle.setPlayer('p1', { name: 'A', team: sets(mine) });
  battle.setPlayer('p2', { name: 'B', team: sets(theirs) });
  quiet(battle);
  while (battle.requestState === 'teampreview') battle.makeChoices('default', 'default');
  const [own, foe] = battle.sides.map((side) => side.active[0]);
  new Function('battle', 'own', 'foe', 'mine', 'theirs', change)(battle, own, foe, ...battle.sides);
  if (battle.requestState === 'move') battle.makeRequest('move');
  const next = turn && after(battle, 0, ...turn);
  const stat = (p, key) => p.modifiedStats?.[key] ?? p.getStat(key, true, true);
  results[name] = { threat: threat(own, foe), worth: worth(battle, 0), theirs: worth(battle, 1), maxhp: foe.maxhp, left: battle.sides.map((s) => s.pokemonLeft),
    stats: { atk: stat(own, 'atk'), spa: stat(own, 'spa'), def: stat(foe, 'def'), spd: stat(foe, 'spd') },
    ...(next && { turn: next.turn, was: battle.turn, asks: next.requestState, ended: next.ended, stands: next.sides.map((side) => side.active[0].species.name) }) };
}
console.log(JSON.stringify(results));
"""
# name: generation, own move or whole team, change; the target is a Snorlax, the attacker a Tauros.
HITS = {
    "plain": (3, "icebeam", ""),
    "own type": (3, "icebeam", "own.setType('Ice')"),
    "weak": (3, "icebeam", "foe.setType('Grass')"),
    "twice weak": (3, "icebeam", "foe.setType(['Grass', 'Flying'])"),
    "resisted": (3, "icebeam", "foe.setType('Water')"),
    "weak and nearly gone": (3, "icebeam", "foe.setType('Grass'); foe.hp = 1"),
    "gone": (3, "icebeam", "foe.hp = 0"),
    "immune": (3, "thunderbolt", "foe.setType('Ground')"),
    "no attack": (3, "rest", ""),
    "no PP left": (3, "icebeam", "own.moveSlots[0].pp = 0"),
    "the better of two": (3, "watergun,icebeam", ""),
    "the better of two, first": (3, "icebeam,watergun", ""),
    "often misses": (3, "thunder", ""),
    "never misses": (3, "swift", ""),
    "recharges": (3, "hyperbeam", "own.setType('Ice')"),
    "charges": (3, "solarbeam", ""),
    "costs its user": (3, "explosion", "own.setType('Ice')"),
    "some hits": (3, "pinmissile", ""),
    "two hits": (3, "doublekick", "foe.setType('Ice')"),
    "as much as the level": (3, "seismictoss", "own.level = 50"),
    "a fixed amount": (3, "sonicboom", "foe.setType('Rock')"),
    "a fixed amount for a ghost": (3, "seismictoss", "foe.setType('Ghost')"),
    "physical": (3, "earthquake", ""),
    "burnt": (3, "earthquake", "own.status = 'brn'"),
    "burnt, special": (3, "icebeam", "own.status = 'brn'"),
    "burnt in generation 1": (1, "earthquake", "own.status = 'brn'"),
    "healthy in generation 1": (1, "earthquake", ""),
    "raised in generation 1": (1, "earthquake", "own.boostBy({ atk: 2 })"),
    "raised": (3, "icebeam", "own.boosts.spa = 2"),
    "a stat lowered": (3, "icebeam", "own.boosts.spa = -2"),
    "against raised": (3, "icebeam", "foe.boosts.spd = 2"),
    "another stat raised": (3, "icebeam", "own.boosts.atk = 2; foe.boosts.def = 2"),
    "physical, raised": (3, "earthquake", "own.boosts.atk = 2"),
    "physical, against raised": (3, "earthquake", "foe.boosts.def = 2"),
}
THREE = ["Snorlax/rest", "Gengar/rest", "Zapdos/rest"]
SIDES = {
    "even": "",
    "hurt": "own.hp = own.maxhp / 2",
    "nearly gone": "own.hp = 1",
    "a bench that is hurt": "mine.pokemon[1].hp /= 2",
    "a bench that is gone": "mine.pokemon[1].hp = 0; mine.pokemonLeft--",
    **{status: f"mine.pokemon[1].status = '{status}'" for status in ("par", "brn", "psn", "tox", "slp", "frz")},
    **{f"{stat} raised": f"own.boosts.{stat} = 1" for stat in ("atk", "def", "spa", "spd", "spe", "accuracy", "evasion")},
    "lowered": "own.boosts.atk = -1",
    "raised by 3": "own.boosts.atk = 3",
    "raised by 6": "own.boosts.atk = 6",
    "lowered by 3": "own.boosts.atk = -3",
    "lowered by 6": "own.boosts.atk = -6",
    "raised and nearly gone": "own.boosts.atk = 3; own.hp = 1",
    "substitute": "own.volatiles.substitute = {}",
    "leechseed": "own.volatiles.leechseed = {}",
    "foe seeded": "foe.volatiles.leechseed = {}",
    "reflect": "mine.sideConditions.reflect = {}",
    "rocks": "mine.sideConditions.stealthrock = {}",
    "spikes": "mine.sideConditions.spikes = { layers: 1 }",
    "two spikes": "mine.sideConditions.spikes = { layers: 2 }",
    "spikes for nobody": "mine.sideConditions.spikes = { layers: 1 }; mine.pokemonLeft = 1",
    "something else": "mine.sideConditions.luckychant = {}; own.volatiles.flinch = {}",
    "won": "battle.ended = true; battle.winner = 'A'",
    "lost": "battle.ended = true; battle.winner = 'B'",
    "tied": "battle.ended = true; battle.winner = ''",
}  # fmt: skip
ATTACK = ["Tauros/icebeam,rest", "Gengar/rest"]
BENCH = ["Zapdos/thunderbolt", "Rhydon/icebeam", "Snorlax/watergun", "Gengar/watergun"]
SLOW = "foe.hp = 1; foe.storedStats.spe = 1"
TURNS = {
    "a turn": ({"mine": ATTACK, "theirs": BENCH}, "", ("move rest", "move thunderbolt")),
    "what is refused": ({"mine": ATTACK, "theirs": BENCH}, "", ("move brandnewmove", "switch 9")),
    "a switch": ({"mine": ATTACK, "theirs": BENCH}, "", ("switch 2", "switch 3")),
    "a fall": ({"mine": ATTACK, "theirs": BENCH}, SLOW, ("move icebeam", "move thunderbolt")),
    "the last falls": ({"mine": ATTACK, "theirs": BENCH[:1]}, SLOW, ("move icebeam", "move thunderbolt")),
}  # fmt: skip


@pytest.fixture(scope="module")
def seen():
    rows = {
        name: {"gen": gen, "mine": [f"Tauros/{moves}"], "theirs": ["Snorlax/rest"], "change": change}
        for name, (gen, moves, change) in HITS.items()
    }
    rows |= {name: {"gen": 4, "mine": THREE, "theirs": THREE, "change": change} for name, change in SIDES.items()}
    rows |= {name: {"gen": 4, **teams, "change": change, "turn": turn} for name, (teams, change, turn) in TURNS.items()}
    return json.loads(run_script(SCRIPT, rows))


def hit(row, power, kind="special", factor=1.0, attack=1.0, defense=1.0, extra=1.0):
    """Share of the target's health by the game's own formula, the dice at their mean."""
    first, second = ("spa", "spd") if kind == "special" else ("atk", "def")
    base = (42 * power * row["stats"][first] * attack / (row["stats"][second] * defense)) / 50 + 2
    return 0.93 * base * factor * extra / row["maxhp"]


@pytest.mark.parametrize(
    ("name", "power", "more"),
    [
        ("plain", 95, {}),
        ("own type", 95, {"factor": 1.5}),
        ("weak", 95, {"factor": 2}),
        ("twice weak", 95, {"factor": 4}),
        ("resisted", 95, {"factor": 0.5}),
        ("the better of two", 95, {}),
        ("the better of two, first", 95, {}),
        ("often misses", 120, {"extra": 0.7}),
        ("never misses", 60, {"kind": "physical", "factor": 1.5}),
        ("recharges", 150, {"kind": "physical", "extra": 0.9 * 0.6}),
        ("charges", 120, {"extra": 0.5}),
        ("costs its user", 250, {"kind": "physical", "extra": 0.6}),
        ("some hits", 14, {"kind": "physical", "extra": 3 * 0.85}),
        ("two hits", 30, {"kind": "physical", "factor": 2, "extra": 2}),
        ("physical", 100, {"kind": "physical"}),
        ("burnt", 100, {"kind": "physical", "attack": 0.5}),
        ("burnt, special", 95, {}),
        ("burnt in generation 1", 100, {"kind": "physical"}),
        ("raised in generation 1", 100, {"kind": "physical"}),
        ("raised", 95, {"attack": 2}),
        ("a stat lowered", 95, {"attack": 0.5}),
        ("against raised", 95, {"defense": 2}),
        ("another stat raised", 95, {}),
        ("physical, raised", 100, {"kind": "physical", "attack": 2}),
        ("physical, against raised", 100, {"kind": "physical", "defense": 2}),
    ],
)
def test_what_an_attack_threatens(seen, name, power, more):
    assert seen[name]["threat"] == pytest.approx(hit(seen[name], power, **more), rel=1e-6)


def test_what_threatens_nothing_and_what_takes_a_fixed_amount(seen):
    for name in ("immune", "no attack", "no PP left", "a fixed amount for a ghost"):
        assert seen[name]["threat"] == 0, name
    assert seen["as much as the level"]["threat"] == pytest.approx(50 / seen["plain"]["maxhp"])
    assert seen["a fixed amount"]["threat"] == pytest.approx(0.9 * 20 / seen["plain"]["maxhp"])


def test_a_side_is_worth_what_its_pokemon_can_still_do(seen):
    gain = {name: seen[name]["worth"] for name in SIDES}
    assert gain["even"] == 0
    assert all(seen[name]["theirs"] == pytest.approx(-gain[name]) for name in SIDES)
    assert gain["won"] > 9
    assert (gain["lost"], gain["tied"]) == (-gain["won"], 0)
    # Half of a Pokémon's health is worth less than half of it: the last point is worth the most.
    assert gain["a bench that is gone"] == pytest.approx(-1)
    assert gain["hurt"] == gain["a bench that is hurt"] == pytest.approx(-0.3)
    assert -0.62 < gain["nearly gone"] < -0.59
    assert gain["frz"] < gain["slp"] < gain["tox"] < gain["par"] == gain["brn"] < gain["psn"] < 0
    for stat in ("atk", "def", "spa", "spd", "spe", "accuracy", "evasion"):
        assert 0.02 < gain[f"{stat} raised"] < 0.1, stat
    assert gain["lowered"] == -gain["atk raised"]
    assert gain["raised by 6"] == gain["raised by 3"] == pytest.approx(3 * gain["atk raised"])
    assert gain["lowered by 6"] == gain["lowered by 3"] == -gain["raised by 3"]
    assert 0 < gain["raised and nearly gone"] - gain["nearly gone"] < 0.4 * gain["raised by 3"]
    assert gain["substitute"] > 0 > gain["leechseed"] == -gain["foe seeded"]
    assert gain["reflect"] > 0 > gain["spikes"] > gain["rocks"]
    assert gain["two spikes"] == pytest.approx(2 * gain["spikes"])
    assert (gain["spikes for nobody"], gain["something else"]) == (0, 0)


def test_a_threat_is_worth_what_there_is_left_to_take(seen):
    plain, left, gone = seen["plain"], seen["weak and nearly gone"], seen["gone"]
    assert plain["worth"] == -plain["theirs"] == pytest.approx(0.3 * plain["threat"])
    assert left["threat"] > plain["threat"]
    assert left["worth"] == pytest.approx(0.6 - 0.3 / left["maxhp"])  # of its last point, no more
    assert left["theirs"] == -left["worth"]
    assert gone["worth"] == 1


def test_a_turn_is_played_on_another_battle_until_both_choose_again(seen):
    assert [seen[name]["turn"] - seen[name]["was"] for name in TURNS] == [1, 1, 1, 1, 0]
    assert seen["a turn"]["stands"] == seen["what is refused"]["stands"] == ["Tauros", "Zapdos"]
    assert seen["a switch"]["stands"] == ["Gengar", "Snorlax"]
    assert seen["a fall"]["stands"] == ["Tauros", "Snorlax"]  # who takes the Ice Beam best
    assert (seen["a fall"]["asks"], seen["a fall"]["left"]) == ("move", [2, 4])
    assert seen["the last falls"]["ended"]


TEAM = "]".join(
    f"{name}|||{ability}|{moves}||||||100|"
    for name, ability, moves in (
        ("Starmie", "naturalcure", "surf,thunderbolt,recover,icebeam"),
        ("Zapdos", "pressure", "thunderbolt,drillpeck,rest,roar"),
        ("Tyranitar", "sandstream", "rockslide,earthquake,crunch,icebeam"),
    )
)


def decide(simulator, gen, lines, *changes, plies=1, seed=(1, 2), team=TEAM):
    """The action and the worth of each after a row's lines, as in `tests/battle/table.py`, before a changed request."""
    _, feeds = command(0, gen, lines.split(" ; ") if lines else [], list(changes))
    spec = {"format": feeds[0][0], "teams": [team], "seed": seed, "plies": plies, "determinizations": 1}
    for first, (_, said, asked) in zip((spec, *[None] * len(feeds)), feeds, strict=False):
        simulator.command("search", "decide", first, said, json.loads(asked))
    event = [event for event in simulator.step() if event.lane == "decide"][-1]
    simulator.drop("decide")
    assert event.event == "searched", event.message
    return event.action, event.worth


BODYSLAM, CHANSEY, TAUROS = 0, 4, 7  # actions; switches are 4 to 8 by name


@pytest.mark.parametrize("plies", [1, 2])
def test_it_finishes_who_is_nearly_gone(simulator, plies):
    moves = [{"move": name, "id": name, "pp": 9, "maxpp": 16} for name in ("bodyslam", "rest")]
    asked = f"active.0.moves={json.dumps(moves)}", "active.0.trapped=true", 'side.pokemon.0.moves=["bodyslam","rest"]'
    action, worth = decide(simulator, 3, "-damage|p2a: Foe|1/100", *asked, plies=plies, team=TEAM[: TEAM.index("]")])
    assert action == BODYSLAM
    assert worth[0] > worth[1]
    assert worth[2:] == [None] * 11


def test_it_knows_which_move_is_which_by_its_name(simulator):
    """A request's moves stand in the team's order, actions in the alphabet's."""
    asked = "active.0.moves=" + json.dumps(
        [{"move": name, "id": name, "pp": 9, "maxpp": 16} for name in ("rest", "bodyslam", "splash")]
    )
    own = 'side.pokemon.0.moves=["rest","bodyslam","splash"]'
    action, worth = decide(simulator, 3, "-damage|p2a: Foe|1/100", asked, own, "active.0.trapped=true")
    assert action == 0
    assert worth[3:9] == [None] * 6
    assert worth[0] > max(worth[1:3])


def test_where_there_is_one_choice_it_looks_no_further(simulator):
    locked = 'active.0={"moves":[{"move":"Earthquake","id":"earthquake"}],"trapped":true}'
    assert decide(simulator, 3, "", locked) == (0, [None] * 13)


FORCED = ("active-", "forceSwitch=[true]", 'side.pokemon.0.condition="0 fnt"')


def test_who_comes_in_is_judged_by_what_it_then_can_do(simulator):
    lines = "switch|p2a: Bolt|Jolteon|100/100 ; move|p2a: Bolt|Thunderbolt|p1a: Mine ; faint|p1a: Mine"
    healthy = decide(simulator, 3, lines, *FORCED)[1]
    assert None not in healthy[CHANSEY:9]
    assert healthy[:CHANSEY] == [None] * 4
    weak = decide(simulator, 3, lines, *FORCED, 'side.pokemon.4.condition="1/400"')[1]
    assert weak[TAUROS] < healthy[TAUROS]
    ground = 'side.pokemon.4.details="Donphan, M"', 'side.pokemon.4.ident="p1: Donphan"'
    action, _ = decide(simulator, 3, lines, *FORCED, *ground)
    assert action == CHANSEY + 1  # Donphan, whom no Thunderbolt reaches, between Chansey and Dragonite


def test_of_those_to_be_revived_it_takes_the_first(simulator):
    fallen = [f'side.pokemon.{place}.condition="0 fnt"' for place in (1, 5)]
    action, worth = decide(simulator, 9, "", *FORCED[:2], *fallen, "side.pokemon.0.reviving=true")
    assert action == CHANSEY
    assert worth[CHANSEY] > worth[CHANSEY + 1]
    assert worth[CHANSEY + 2 :] == [None] * 7


def test_a_decision_is_a_function_of_its_seed(simulator):
    first, again, other = (decide(simulator, 4, "", seed=seed)[1] for seed in ((1, 2), (1, 2), (1, 3)))
    assert first == again != other


def test_a_terastallization_is_a_choice_of_its_own(simulator):
    _, worth = decide(simulator, 9, "")
    assert None not in worth
    assert worth[9:13] != worth[0:4]
