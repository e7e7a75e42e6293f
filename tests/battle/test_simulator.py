"""The bridge: replays bit for bit, keeps its memory, tells each side its own."""

import fcntl
import json
import os
import re
import subprocess

import numpy as np
import pytest

from battle.baselines import RandomAgent, TypeSwitchAgent
from battle.errors import InvalidTeam, UnknownFormat
from battle.evaluate import facts_of
from battle.node_process import ROOM, node_command
from battle.play import Match, play
from battle.play import _Table as Table
from battle.simulator import BattleSpec, Simulator
from battle.teams import load_teams
from tests.battle.node_script import run_script


def battles(sim, battle_format, count, agents=None, **options):
    teams = load_teams(sim, battle_format)
    agents = agents or (RandomAgent(), RandomAgent())
    matches = [
        Match(f"m{n}", battle_format, agents, seed=n, teams=(teams[n % len(teams)].packed, teams[-1].packed))
        for n in range(count)
    ]
    return sorted(play(sim, matches, **options), key=lambda outcome: outcome.match.id)


def gist(outcomes):
    return [
        (
            o.kind,
            o.winner,
            o.turns,
            [v.states for v in o.views],
            [v.actions for v in o.views],
            [v.legal for v in o.views],
        )
        for o in outcomes
    ]


@pytest.mark.parametrize(
    "battle_format",
    ["gen9ou", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gen1ou", "gen9randombattle"))],
)
def test_a_battle_is_a_function_of_its_seed(simulator, battle_format):
    first = gist(battles(simulator, battle_format, 3))
    assert first == gist(battles(simulator, battle_format, 3, lanes=2))
    with Simulator(processes=2) as other:
        assert first == gist(battles(other, battle_format, 3))
    assert len({turns for _, _, turns, *_ in first}) > 1


def test_more_processes_than_wide_pipes_are_allowed_play_all_the_same(simulator, monkeypatch):
    def refuse(pipe, command, size):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with Simulator() as narrow:
        found = gist(battles(narrow, "gen1ou", 6))
    assert found == gist(battles(simulator, "gen1ou", 6))


@pytest.mark.parametrize("battle_format", ["gen1ou", "gen3ou", "gen9ou"])
def test_a_bench_told_by_number_gives_the_very_bytes_of_whole_states(simulator, monkeypatch, battle_format):
    told = gist(battles(simulator, battle_format, 2))
    short = BattleSpec.message

    def whole(spec):
        message = short(spec)
        assert message["want"].pop("told")
        return message

    monkeypatch.setattr(BattleSpec, "message", whole)
    assert told == gist(battles(simulator, battle_format, 2))


def test_the_simulator_alone_plays_the_same_battles_from_their_logs(simulator):
    """What our lanes put in place of its slower parts (copies of moves, the search for handlers) changes nothing."""
    outcomes = []
    for battle_format in ("gen1ou", "gen2ou", "gen3ou", "gen4ou", "gen9ou", "gen9randombattle"):
        teams = load_teams(simulator, battle_format)
        matches = [
            Match(
                f"m{n}",
                battle_format,
                (RandomAgent(), TypeSwitchAgent()),
                seed=n,
                teams=(teams[n].packed, teams[-1 - n].packed) if len(teams) > 1 else (None, None),
                want_log=True,
            )
            for n in range(2)
        ]
        outcomes += play(simulator, matches)
    alone = subprocess.run(
        [node_command()[0], str(ROOM / "node" / "bare.js"), "logged", "0", "hash"],
        input=json.dumps([outcome.log for outcome in outcomes]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(alone.stdout)["hashes"] == [outcome.sha256 for outcome in outcomes]


CLONES = """
const assert = require('assert');
const { Dex } = require('pokemon-showdown');
const { Utils } = require('pokemon-showdown/dist/lib/utils');
const { deepClone } = require('./node/clone');
let compared = 0;
for (let gen = 1; gen <= 9; gen++) {
  const dex = Dex.forGen(gen);
  for (const entry of [...dex.moves.all(), ...dex.species.all()]) {
    for (let again = 0; again < 2; again++) {
      const ours = deepClone(entry);
      const theirs = Utils.deepClone(entry);
      assert.deepStrictEqual(ours, theirs);
      assert.deepStrictEqual(Object.keys(ours), Object.keys(theirs));
      assert.strictEqual(Object.getPrototypeOf(ours), Object.getPrototypeOf(entry));
      assert(!Object.isFrozen(ours));
      for (const [key, value] of Object.entries(ours)) {
        assert(value === null || typeof value !== 'object' || value !== entry[key]);
      }
      compared++;
    }
  }
}
const own = { nothing: [null] };
assert.deepStrictEqual(deepClone(own), own);
own.late = {};
assert.notStrictEqual(deepClone(own).late, own.late);
console.log(compared);
"""


def test_the_faster_copy_of_a_move_is_the_simulators_own():
    assert int(run_script(CLONES)) > 10_000


HANDLERS = r"""
const assert = require('assert');
const { Battle } = require('pokemon-showdown');
const { findEventHandlers } = require('./node/events');
const team = ['Snorlax', 'Gengar', 'Zapdos'].map((name) => ({ name, species: name, moves: ['rest'], evs: {} }));
const facts = (found) => found.flatMap((one) => [one.effect, one.callback, one.effectHolder, one.target, one.index]);
let compared = 0;
for (const gen of [1, 9]) {
  const battle = new Battle({ formatid: `gen${gen}customgame`, seed: '1,2,3,4' });
  for (const side of ['p1', 'p2']) battle.setPlayer(side, { name: side, team });
  while (battle.requestState === 'teampreview') battle.makeChoices('default', 'default');
  const { dex, sides: [mine, theirs] } = battle;
  const [active, bench] = mine.pokemon;
  const foe = theirs.active[0];
  const places = [...[...mine.pokemon, ...theirs.pokemon].map((pokemon) => pokemon.volatiles),
    mine.sideConditions, theirs.sideConditions, battle.field.pseudoWeather];
  // Of abilities, items and conditions those that listen to something new, wherever such a thing may be.
  const ids = [...Object.keys(dex.data.Abilities).map((id) => `ability:${id}`), ...Object.keys(dex.data.Moves),
    ...Object.keys(dex.data.Items).map((id) => `item:${id}`), ...Object.keys(dex.data.Conditions)];
  const heardBy = (one) => Object.keys(one).filter((key) => /^on[A-Z]/.test(key) && typeof one[key] === 'function');
  const names = new Set(Object.values(dex.data.Rulesets).flatMap(heardBy));
  ids.forEach((id, n) => {
    const heard = heardBy(dex.conditions.getByID(id));
    if (heard.some((name) => !names.has(name))) places.forEach((place, i) => { if ((n + i) % 3) place[id] = {}; });
    for (const name of heard) names.add(name);
  });
  [...names].forEach((name, n) => {
    const event = name.replace(/^on(Ally|Any|Foe|Source)?/, '');
    if (n % 4 === 0) battle.format = { ...battle.format, [`on${event}`]() {} };
    if (n % 4 === 1) battle.onEvent(event, battle.format, () => {});
    for (const [target, source] of [[active], [active, foe], [foe, bench], [bench, foe], [bench, bench],
      [[active, foe], foe], [mine], [theirs, foe], [battle]]) {
      battle.findEventHandlers = findEventHandlers;
      const ours = facts(battle.findEventHandlers(target, event, source));
      delete battle.findEventHandlers;
      const own = facts(battle.findEventHandlers(target, event, source));
      assert(ours.length === own.length && ours.every((fact, i) => fact === own[i]), `generation ${gen}: ${event}`);
      compared += own.length;
    }
  });
}
console.log(compared);
"""


def test_the_faster_search_for_handlers_finds_the_simulators_own():
    assert int(run_script(HANDLERS)) > 10_000


def test_what_was_recorded_is_what_the_states_say(simulator):
    for outcome in battles(simulator, "gen1ou", 3, (TypeSwitchAgent(), RandomAgent())):
        assert outcome.kind == "won"
        assert outcome.refused == []
        for side, view in enumerate(outcome.views):
            assert len(view.states) == len(view.actions) == len(view.legal)
            assert view.actions[-1] == -1
            assert min(view.actions[:-1]) >= 0
            assert all(legal >> action & 1 for legal, action in zip(view.legal[:-1], view.actions[:-1], strict=True))
            assert (b'"battle_won":true' in view.states[-1]) == (outcome.winner == side)
            assert b'"battle_won":true' not in view.states[-2]
    assert set(simulator.told) <= set(simulator.home)


def test_teams_that_a_format_makes_come_from_seeds_of_their_own(simulator):
    """A battle whose log holds them is played again from it."""

    def teams(*seeds):
        simulator.start(BattleSpec("made", "gen9randombattle", "1,2,3,4", team_seeds=seeds))
        asked = {event.side: json.loads(bytes(event.state)) for event in simulator.step()}
        simulator.drop("made")
        mine = [asked[side]["player_active_pokemon"] for side in (0, 1)]
        return [json.dumps([mine[side], asked[side]["available_switches"]]) for side in (0, 1)]

    first, second = teams("1,2,3,4", "5,6,7,8")
    assert first != second
    assert teams("1,2,3,4", "8,7,6,5")[0] == first
    assert teams("8,7,6,5", "5,6,7,8")[1] == second


def test_each_side_is_told_each_line_once_and_of_the_others_health_but_hundredths(simulator):
    teams = tuple(team.packed for team in load_teams(simulator, "gen9ou")[:2])
    simulator.start(BattleSpec("told", "gen9ou", "1,2,3,4", teams, want_lines=(True, True)))
    wholes, turns = {(side, owner): set() for side in (0, 1) for owner in (0, 1)}, [[], []]
    for _ in range(12):
        actions = [None, None]
        for event in simulator.step():
            assert event.event == "ask"
            actions[event.side] = (event.legal & -event.legal).bit_length() - 1
            lines = "\n".join(json.loads(bytes(event.lines)))
            turns[event.side] += map(int, re.findall(r"\|turn\|(\d+)", lines))
            for owner, whole in re.findall(r"\|p([12])a?: [^|]*\|(?:[^|]*\|)?\d+/(\d+)", lines):
                wholes[event.side, int(owner) - 1].add(int(whole))
            foe = json.loads(bytes(event.state))["opponent_active_pokemon"]
            assert foe["hp_pct"] * 100 == pytest.approx(round(foe["hp_pct"] * 100))
        simulator.act("told", actions)
    for (side, owner), seen in wholes.items():
        assert (seen == {100}) == (side != owner)
    assert [seen == list(range(1, len(seen) + 1)) and len(seen) > 5 for seen in turns] == [True, True]
    simulator.step()
    simulator.drop("told")
    simulator.step()


def test_a_battle_that_throws_is_void_and_the_others_go_on(simulator):
    teams = [team.packed for team in load_teams(simulator, "gen1ou")[:2]]
    for lane in ("thrown", "other"):
        simulator.start(BattleSpec(lane, "gen1ou", "1,2,3,4", tuple(teams)))
    simulator.step()
    simulator.write("thrown", ">start {")
    simulator.act("other", [0, 0])
    void, *more = simulator.step()
    assert (void.event, void.lane) == ("void", "thrown")
    assert {(event.event, event.lane) for event in more} == {("ask", "other")}
    assert "thrown" not in simulator.home
    simulator.drop("other")
    simulator.step()


def test_a_choice_that_is_refused_is_counted_and_the_battle_goes_on(simulator):
    class Stubborn(RandomAgent):
        def pick(self, observation, legal):
            return int(np.flatnonzero(~observation.legal)[0])

    class Once(RandomAgent):
        asked, told = 0, ()

        def note_action(self, lane, action):
            self.told += ((lane.split("/")[-1], self.asked, action),)

        def pick(self, observation, legal):
            self.asked += 1
            illegal = np.flatnonzero(~observation.legal)
            return int(illegal[0]) if self.asked == 1 and len(illegal) else super().pick(observation, legal)

    once = Once()
    outcome = battles(simulator, "gen1ou", 1, (once, RandomAgent()))[0]
    assert outcome.kind == "won"
    assert once.told == (("0", 1, -1),)  # before it decides again: nobody knows what the default was
    assert len(outcome.refused) == facts_of(outcome)["refused"] == 1
    assert outcome.views[0].actions[0] == -1


def test_a_word_to_one_player_alone_is_no_refusal(simulator):
    """Up to generation 4 the simulator tells a player privately that there is nothing left but Struggle."""
    chansey = "Chansey||||softboiled|||||||"
    match = Match("struggle", "gen1ou", (RandomAgent(), RandomAgent()), seed=1, teams=(chansey, chansey))
    (outcome,) = play(simulator, [match])
    assert outcome.kind == "won"
    assert outcome.turns > 17
    assert outcome.refused == []


def test_a_turn_limit_cuts_without_a_winner(simulator):
    before = set(simulator.home)  # other tests' battles
    outcome = battles(simulator, "gen1ou", 1, turn_limit=5)[0]
    assert (outcome.kind, outcome.winner, outcome.turns) == ("cut", -1, 6)
    assert set(simulator.home) == before
    assert set(simulator.told) <= before
    for view in outcome.views:
        assert view.actions[-1] == -1
        assert b'"battle_won":false,"battle_lost":false' in view.states[-1]


def test_each_side_of_each_battle_draws_by_numbers_of_its_own():
    tables = [Table(Match(f"m{n}", "gen1ou", (RandomAgent(), RandomAgent()), seed=n)) for n in range(3)]
    assert len({seed for table in tables for seed in table.seeds}) == 6
    assert len({text for table in tables for text in (table.match.dice, *table.match.team_seeds)}) == 9


def test_the_end_is_told_to_those_who_were_asked():
    """An agent that has no lane of a battle, whose process was lost before, has none to free."""
    ended = []

    class Told(RandomAgent):
        def end(self, lane):
            ended.append(lane)

    table = Table(Match("m", "gen1ou", (Told(), Told()), seed=1))
    table.seated[1] = True
    table.outcome("void", -1, 0, None)
    assert ended == ["m/1"]


def test_unknown_format_and_invalid_team_are_refused_in_words(simulator):
    # One of doubles, an alias and another spelling: Showdown would play them, and our words have no place for them.
    for name in ("gen99ou", "gen9randomdoublesbattle", "randombattle", "Gen1OU"):
        with pytest.raises(UnknownFormat, match=f"'{name}': .* has no singles format of that id"):
            simulator.check_formats(["gen1ou", name])
    with pytest.raises(InvalidTeam, match=r"broken.txt: .*Tauros can't learn Fly"):
        simulator.pack_team("gen1ou", "Tauros\nEVs: 252 HP\n- Fly\n", "broken.txt")
    with pytest.raises(InvalidTeam, match="no Pokémon"):
        simulator.pack_team("gen1ou", "", "empty.txt")


def test_a_stop_on_the_terminal_does_not_reach_the_battles_that_are_finished_first(simulator):
    assert simulator.version == json.loads((ROOM / "node_modules/pokemon-showdown/package.json").read_text())["version"]
    process = simulator.workers[0].process
    assert os.getpgid(process.pid) == process.pid != os.getpgrp()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_stays_flat_over_three_thousand_battles(tmp_path):
    def resident(pid):
        with open(f"/proc/{pid}/statm") as file:
            return round(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)

    with Simulator() as sim:
        agents = (RandomAgent(), RandomAgent())
        seen = {"node_mib": [], "python_mib": []}
        for round_ in range(6):
            matches = [Match(f"r{round_}m{n}", "gen9randombattle", agents, seed=1000 * round_ + n) for n in range(500)]
            assert all(outcome.kind == "won" for outcome in play(sim, matches, turn_limit=1000))
            seen["node_mib"].append(resident(sim.workers[0].process.pid))
            seen["python_mib"].append(resident(os.getpid()))
        (tmp_path / "memory.json").write_text(json.dumps({"battles_per_entry": 500, **seen}))
        for entries in seen.values():
            assert entries[-1] < 1.3 * entries[1] + 64, seen
        assert not sim.told
        assert not sim.home
