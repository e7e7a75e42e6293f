"""The searching player: legal, repeatable, blind to what is hidden; its twins go their own way; it wins."""

import numpy as np
import pytest

from battle.baselines import MostDamageAgent, RuleAgent
from battle.errors import BattleError
from battle.play import Match, play
from battle.players import UnknownPlayer, make_player, parse_player
from battle.search import SearchAgent, known_teams
from battle.teams import load_teams
from tests.battle.node_script import run_script

pytestmark = pytest.mark.usefixtures("lent")

TWINS = """
const assert = require('assert');
const { Battle } = require('pokemon-showdown');
const { twin } = require('./node/twin');
const books = (battle) => JSON.stringify([battle.turn, battle.winner, battle.prng.getSeed(), battle.sides.map((side) =>
  side.pokemon.map((p) => [p.name, p.hp, p.status, p.boosts, p.moveSlots.map((m) => m.pp)]))]);
for (const format of ['gen1randombattle', 'gen3randombattle', 'gen9randombattle']) {
  const players = { p1: { name: 'a', seed: '1,2,3,5' }, p2: { name: 'b', seed: '1,2,3,6' } };
  const battle = new Battle({ formatid: format, seed: '1,2,3,4', ...players });
  for (let turn = 0; turn < 8 && !battle.ended; turn++) battle.makeChoices();
  const before = books(battle);
  const other = twin(battle);
  const json = Battle.fromJSON(JSON.stringify(battle.toJSON()));
  json.restart(() => {});
  for (let turn = 0; turn < 40; turn++) for (const each of [other, json]) if (!each.ended) each.makeChoices();
  assert.equal(books(battle), before);
  assert.notEqual(books(other), before);
  assert.equal(books(other), books(json));
}
console.log('same');
"""


def test_a_twin_goes_on_as_the_simulators_own_copy_does_and_leaves_its_battle_alone():
    assert run_script(TWINS) == "same"


BROKEN = """
const assert = require('assert');
const { Mind } = require('./node/search');
const said = [];
const spec = { format: 'gen1ou', teams: [], seed: [1, 2], plies: 1, determinizations: 3 };
const mind = new Mind('lane', spec, (message) => said.push(message));
let calls = 0;
const judge = () => { if (++calls === 2) throw new Error('out of order'); return [calls, 1]; };
assert.deepEqual(mind.over({}, judge), [1 + 3, 2]);
assert.equal(said.length, 1);
assert.match(said[0], /search lane: a drawn battle could not be played: Error: out of order/);
assert.throws(() => mind.over({}, () => { throw new Error('all of them'); }), /all of them/);
console.log('said');
"""


def test_a_drawn_battle_that_cannot_be_played_is_said_and_left_out():
    assert run_script(BROKEN) == "said"


class Watched(SearchAgent):
    """Keeps what it saw and chose."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def choose(self, observations):
        actions = super().choose(observations)
        for seen, action in zip(observations, actions, strict=True):
            assert seen.legal[action]
            # The clock is no part of the battle.
            lines = [line for line in seen.lines if not line.startswith("|t:|")]
            self.seen.append((lines, action))
        return actions


class First(RuleAgent):
    """Always the first of its legal moves."""

    name = "first"

    def pick(self, observation, legal):
        return int(legal[0])


def meet(simulator, battle_format, packed, turns, seed=5, **options):
    """What a search player sees and does in the first turns against one who plays its first move."""
    agent = Watched(determinizations=1, **options)
    match = Match("one", battle_format, (agent, First()), seed=seed, teams=packed)
    (outcome,) = play(simulator, [match], turn_limit=turns)
    agent.close()
    assert not outcome.refused
    return agent.seen


@pytest.mark.parametrize("battle_format", [pytest.param("gen1ou", marks=pytest.mark.slow), "gen9randombattle"])
def test_its_choices_are_legal_and_a_function_of_the_seed(simulator, battle_format):
    teams = load_teams(simulator, battle_format)
    packed = (teams[0].packed, teams[-1].packed)
    first = meet(simulator, battle_format, packed, turns=2)
    assert len(first) >= 2
    assert first == meet(simulator, battle_format, packed, turns=2)


@pytest.mark.parametrize(
    "battle_format", ["gen8bssfactory", pytest.param("gen91v1factory", marks=pytest.mark.slow), "gen9battlefactory"]
)
def test_it_plays_where_a_few_are_picked_and_where_a_factory_made_the_teams(simulator, battle_format):
    assert meet(simulator, battle_format, (None, None), turns=4)


UNKNOWN = """
const { Likely } = require('./node/likely');
const [set] = new Likely('gen9ou', []).of('Togepi');
console.log(set.moves.length);
"""


def test_a_species_of_a_generation_before_has_moves():
    assert run_script(UNKNOWN) == "4"


TIERS = """
const { Likely } = require('./node/likely');
const { Dex } = require('pokemon-showdown');
for (const format of ['gen3uu', 'gen9randombattle', 'gen1lc']) {
  const { teams } = new Likely(format, []);
  const rules = Dex.formats.getRuleTable(Dex.formats.get(format));
  const banned = (set) => rules.isBannedSpecies(Dex.forFormat(format).species.get(set.species || set.name));
  console.log(format, teams.length, teams.flat().some(banned));
}
"""


def test_where_no_team_is_known_it_expects_those_of_the_formats_own_tier():
    # Of Little Cup none can be made; there it expects what random battles have.
    assert run_script(TIERS).splitlines() == ["gen3uu 40 false", "gen9randombattle 40 false", "gen1lc 40 false"]


def test_its_time_is_for_one_decision_not_for_those_of_all_battles(simulator):
    """Two turns ahead, a round of the usual 64 battles takes longer than any process is waited for."""
    agent, asked = SearchAgent(determinizations=1), []
    step = agent._sim.step

    def watch():
        asked.append([command[0] for commands in agent._sim.queue.values() for command in commands].count("search"))
        return step()

    agent._sim.step = watch
    teams = load_teams(simulator, "gen1ou")
    packed = (teams[0].packed, teams[-1].packed)
    list(play(simulator, [Match(name, "gen1ou", (agent, First()), 5, packed) for name in "ab"], turn_limit=1))
    agent.close()
    assert len(asked) >= 2
    assert set(asked) == {1}


def test_what_is_hidden_does_not_change_its_choice(simulator):
    """Two battles that look alike: the opponent's bench carries other moves, items, abilities and spreads."""
    teams = load_teams(simulator, "gen9ou")
    lead, *bench = teams[1].packed.split("]")
    fields = [entry.split("|") for entry in bench]
    for entry in fields:
        entry[2], entry[4] = "leftovers" if entry[2] != "leftovers" else "lifeorb", "tackle,protect,rest,sleeptalk"
        entry[6] = "4,0,252,0,252,0"
    other = "]".join([lead, *("|".join(entry) for entry in fields)])
    assert other != teams[1].packed
    seen = [meet(simulator, "gen9ou", (teams[0].packed, team), turns=3) for team in (teams[1].packed, other)]
    alike = next((n for n, (a, b) in enumerate(zip(*seen, strict=False)) if a[0] != b[0]), min(map(len, seen)))
    assert alike >= 2
    assert [action for _, action in seen[0][:alike]] == [action for _, action in seen[1][:alike]]


def test_it_is_a_player_by_name_with_options_of_its_own():
    agent = make_player(parse_player("deep=search:plies=2,determinizations=3,seed=4,weight=2"))
    assert (agent.name, agent.plies, agent.determinizations, agent.seed) == ("deep", 2, 3, 4)
    agent.close()
    with pytest.raises(UnknownPlayer, match="temperature=1"):
        parse_player("search:temperature=1")
    for wrong in ("plies=3", "determinizations=0"):
        with pytest.raises(BattleError, match=wrong):
            make_player(parse_player(f"search:{wrong}"))
    assert known_teams("gen9randombattle") == []
    assert len(known_teams("gen1ou")) >= 12


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_it_wins_against_the_biggest_hit(simulator):
    agent = SearchAgent()
    teams = load_teams(simulator, "gen1ou", purpose="evaluation")
    rng = np.random.default_rng(0)
    wins = 0
    for n in range(20):
        drawn = rng.choice(len(teams), 2, replace=False)
        agents = (agent, MostDamageAgent()) if n % 2 == 0 else (MostDamageAgent(), agent)
        match = Match(f"m{n}", "gen1ou", agents, seed=n, teams=tuple(teams[i].packed for i in drawn))
        (outcome,) = play(simulator, [match])
        wins += outcome.winner == n % 2
    assert wins >= 13
