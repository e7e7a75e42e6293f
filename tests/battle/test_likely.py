"""What an opponent is expected to have: what agrees with what it showed, of the teams that are known."""

import json

import pytest

from tests.battle.node_script import run_script

TEAMS = [
    "]".join(f"{name}||{item}|{ability}|{moves}||252,,,,,4||,0,,,,|||" for name, item, ability, moves in team)
    for team in (
        (
            ("Starmie", "leftovers", "naturalcure", "surf,thunderbolt,recover,blizzard"),
            ("Zapdos", "leftovers", "pressure", "hiddenpowerice,thunderbolt,roar,rest"),
            ("Tauros", "choiceband", "intimidate", "return,earthquake,hiddenpowerghost,doubleedge"),
        ),
        (
            ("Starmie", "lumberry", "illuminate", "psychic,surf,thunderwave,rapidspin"),
            ("Zapdos", "lumberry", "pressure", "thunderwave,drillpeck,batonpass,agility"),
            ("Deoxys-Speed", "lumberry", "pressure", "spikes,taunt,superpower,recover"),
        ),
    )
]
SCRIPT = """
const { Likely, PRNG } = require('./node/likely');
const { teams, shown, unseen, strangers } = JSON.parse(require('fs').readFileSync(0));
const dice = [...Array(20).keys()].map((n) => () => new PRNG(`${n + 1},2,3,4`));
const likely = new Likely('gen3ubers', teams);
console.log(JSON.stringify({
  drawn: shown.map((each) => dice.map((die) => likely.draw(each, die()))),
  unseen: unseen.map(([count, seen]) => dice.map((die) => likely.unseen(count, seen, die()))),
  strangers: strangers.map(([format, name]) => new Likely(format, teams).of(name)),
}));
"""
UNKNOWN = {"moves": [], "item": None, "ability": "", "level": 100, "gender": "", "teraType": ""}
SHOWN = {
    "nothing": {"species": "Starmie"},
    "a move of the second": {"species": "Starmie", "moves": ["thunderwave"]},
    "a move of both": {"species": "Starmie", "moves": ["surf"]},
    "two of the first, one of the second": {"species": "Starmie", "moves": ["psychic", "recover", "blizzard"]},
    "an item": {"species": "Starmie", "item": "lumberry"},
    "an ability": {"species": "Starmie", "ability": "naturalcure"},
    "what nobody has": {
        "species": "Starmie",
        "moves": ["icebeam"],
        "item": "petayaberry",
        "ability": "pressure",
        "level": 77,
        "gender": "N",
        "teraType": "Ghost",
    },
    "no item any more": {"species": "Starmie", "item": ""},
    "four moves": {"species": "Starmie", "moves": ["icebeam", "toxic", "confuseray", "minimize"]},
    "a Hidden Power": {"species": "Zapdos", "moves": ["hiddenpower"]},
    "a Hidden Power that nobody has": {"species": "Starmie", "moves": ["hiddenpower"]},
    "another form": {"species": "Deoxys-Attack"},
}
UNSEEN = {
    "one beside what the first has": (1, ["Starmie", "Zapdos"]),
    "all of one": (3, []),
    "one of whom nobody was seen": (1, []),
    "more than there are": (9, ["Starmie"]),
    "by another form": (4, ["Deoxys-Attack"]),
}
STRANGERS = [("gen3ubers", "Skarmory"), ("gen9ou", "Bulbasaur"), ("gen9ou", "Togepi"), ("gen3ubers", "Sunkern")]


@pytest.fixture(scope="module")
def found():
    asked = {
        "teams": TEAMS,
        "shown": [UNKNOWN | each for each in SHOWN.values()],
        "unseen": list(UNSEEN.values()),
        "strangers": STRANGERS,
    }
    return json.loads(run_script(SCRIPT, asked))


def drawn(found, name, key):
    sets = found["drawn"][list(SHOWN).index(name)]
    return {tuple(each[key]) if key == "moves" else each[key] for each in sets}


HITS = ["leafstorm", "petaldance", "powerwhip", "solarbeam"]  # the type's own count half as much again
FIRST = ("surf", "thunderbolt", "recover", "blizzard")
SECOND = ("psychic", "surf", "thunderwave", "rapidspin")


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("nothing", "item", {"Leftovers", "Lum Berry"}),
        ("nothing", "moves", {FIRST, SECOND}),
        ("a move of the second", "moves", {("thunderwave", "psychic", "surf", "rapidspin")}),
        ("a move of the second", "item", {"Lum Berry"}),
        ("a move of both", "item", {"Leftovers", "Lum Berry"}),
        ("two of the first, one of the second", "moves", {("psychic", "recover", "blizzard", "surf")}),
        ("an item", "moves", {SECOND}),
        ("an ability", "moves", {FIRST}),
        ("what nobody has", "moves", {("icebeam", *FIRST[:3]), ("icebeam", *SECOND[:3])}),
        ("what nobody has", "item", {"petayaberry"}),
        ("what nobody has", "ability", {"pressure"}),
        ("what nobody has", "level", {77}),
        ("what nobody has", "gender", {"N"}),
        ("what nobody has", "teraType", {"Ghost"}),
        ("no item any more", "item", {""}),
        ("no item any more", "ability", {"Natural Cure", "Illuminate"}),
        ("four moves", "moves", {("icebeam", "toxic", "confuseray", "minimize")}),
        ("a Hidden Power", "moves", {("hiddenpowerice", "thunderbolt", "roar", "rest")}),
        ("a Hidden Power that nobody has", "moves", {("hiddenpower", *FIRST[:3]), ("hiddenpower", *SECOND[:3])}),
        ("another form", "species", {"Deoxys-Attack"}),
        ("another form", "moves", {("spikes", "taunt", "superpower", "recover")}),
    ],
)  # fmt: skip
def test_a_drawn_set_agrees_with_what_was_shown(found, name, key, values):
    assert drawn(found, name, key) == values


def test_a_drawn_set_keeps_the_spread_of_its_own(found):
    for each in found["drawn"][0]:
        assert (each["evs"]["hp"], each["evs"]["spe"], each["ivs"]["atk"]) == (252, 4, 0)


def test_those_who_were_not_seen_are_of_one_team_and_nobody_twice(found):
    lists = dict(zip(UNSEEN, found["unseen"], strict=True))
    assert {tuple(names) for names in lists["one beside what the first has"]} == {("Tauros",), ("Deoxys-Speed",)}
    assert {tuple(sorted(names)) for names in lists["all of one"]} == {
        ("Starmie", "Tauros", "Zapdos"),
        ("Deoxys-Speed", "Starmie", "Zapdos"),
    }
    assert {len(names) for names in lists["one of whom nobody was seen"]} == {1}
    assert {tuple(sorted(names)) for names in lists["more than there are"]} == {("Deoxys-Speed", "Tauros", "Zapdos")}
    assert {tuple(sorted(names)) for names in lists["by another form"]} == {("Starmie", "Tauros", "Zapdos")}


def test_a_species_that_nobody_plays_has_random_battles_sets_or_its_best_hits(found):
    made, bulbasaur, togepi, old = found["strangers"]
    assert len(made) == 3
    assert all(len(each["moves"]) == 4 and each["species"] == "Skarmory" for each in made)
    assert bulbasaur == [{"species": "Bulbasaur", "ability": "Overgrow", "item": "", "moves": HITS}]
    assert old[0]["moves"] == ["solarbeam", "doubleedge", "gigadrain", "sludgebomb"]
    assert togepi[0]["moves"][:2] == ["lastresort", "playrough"]  # not in this generation: those of one before
