"""Ratings, evaluation by play, the environment, live play on a local server."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from battle import evaluate, ladder, players
from battle.baselines import RandomAgent
from battle.env import BattleEnv, make_vector
from battle.errors import BattleError
from battle.journal import Journal, code_of
from battle.local_server import LocalServer, ServerTrouble, listening
from battle.play import play
from battle.players import make_player, parse_player, parse_players
from battle.rating import bradley_terry, elo_margins, expected_score, gxe, wilson
from battle.recorder import CannotRecord, Recorder
from battle.simulator import Simulator
from battle.teams import team_files
from data.replay_file import read_battle
from trainer.setup import free_port

ROOT = Path(__file__).parents[2]


def test_wilson_against_known_values():
    low, high = wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[1] == pytest.approx(1.0)


def test_bradley_terry_finds_the_strengths_that_made_the_scores():
    truth = np.array([1700.0, 1500.0, 1300.0])
    chance = np.array([[expected_score(a, b) for b in truth] for a in truth])
    scores = 10_000 * chance
    np.fill_diagonal(scores, 0)
    found = bradley_terry(scores, prior=0.0)
    assert np.allclose(found, truth, atol=0.5)
    assert np.all(np.diff(gxe(found)) < 0)


def test_one_who_won_everything_has_a_finite_rating():
    found = bradley_terry(np.array([[0.0, 10.0], [0.0, 0.0]]))
    assert np.isfinite(found).all()
    assert found[0] > found[1]


def test_margins_are_how_far_ratings_scatter_from_one_tournament_to_the_next():
    truth, battles = np.array([1750.0, 1550.0, 1450.0, 1250.0]), 60
    chance = np.array([[expected_score(a, b) for b in truth] for a in truth])
    rng = np.random.default_rng(0)

    def tournament(n: float | None = None):
        wins = np.triu(rng.binomial(battles, chance) if n is None else n * chance, 1)
        return wins + np.tril((battles if n is None else n) - wins.T, -1)

    scatter = 1.96 * np.std([bradley_terry(tournament()) for _ in range(400)], axis=0)
    assert np.allclose(elo_margins(tournament(battles), truth), scatter, rtol=0.12)
    assert np.all(elo_margins(tournament(4 * battles), truth) < 0.55 * scatter)


def test_margins_of_many_players_are_no_rounding_errors():
    """The one strength that nobody can know, everybody's together, has an eigenvalue of 0 that comes out as 1e-14."""
    rng = np.random.default_rng(1)
    for number in (8, 10, 11, 12, 20, 30):
        for _ in range(40):
            strength = rng.normal(1500, 200, number)
            chance = expected_score(strength[:, None], strength[None, :])
            wins = np.triu(rng.binomial(rng.integers(5, 500), chance), 1)
            scores = wins + np.tril(rng.binomial(300, chance), -1)
            margins = elo_margins(scores, bradley_terry(scores))
            assert np.all((margins > 5) & (margins < 500))


def test_one_who_ended_no_battle_has_no_rating_and_spoils_none():
    names = ("random", "boss", "planner")
    arena = evaluate.Arena([evaluate.Counted(make_player(parse_player(name))) for name in names])
    arena.tallies["gen1ou", 0, 1] = evaluate.Tally(wins=1, losses=9)
    arena.tallies["gen1ou", 0, 2] = evaluate.Tally(void=10)
    arena.tallies["gen2ou", 0, 2] = evaluate.Tally(void=10)
    report = arena.report(1.0)
    found = json.loads(json.dumps(report, allow_nan=False))["ratings"]
    two = bradley_terry(np.array([[0.0, 1.0], [9.0, 0.0]]))
    assert [found["gen1ou"][name]["elo"] for name in ("random", "boss")] == [round(elo, 1) for elo in two]
    assert found["gen1ou"]["planner"] == found["all"]["planner"] == {"elo": None, "margin95": None, "gxe": None}
    assert {rating["elo"] for rating in found["gen2ou"].values()} == {None}
    said = evaluate.table(report)
    assert "planner –" in said
    assert "nan" not in said


def arguments(*more):
    return evaluate.parser().parse_args(
        ["--agent", "type_switch", "--against", "random", "--formats", "gen1ou", "--battles", "8", *more]
    )


def test_the_same_seed_gives_the_same_evaluation_and_the_better_player_wins():
    first, second = evaluate.run(arguments()), evaluate.run(arguments("--lanes", "3"))
    assert first["results"] == second["results"]
    (row,) = first["results"]
    assert row["battles"] == 8
    assert row["win_rate"] >= 0.8
    assert row["refused_choices"] == 0
    assert evaluate.run(arguments("--seed", "1"))["results"] != first["results"]
    assert "type_switch" in evaluate.table(first)


def test_a_stop_lets_the_battles_under_way_end_and_shows_them_and_the_same_command_goes_on(
    monkeypatch, capsys, tmp_path
):
    choose, told = evaluate.Counted.choose, []

    def tells(self, observations):
        if not told:
            told.append(signal.raise_signal(signal.SIGINT))
        return choose(self, observations)

    monkeypatch.setattr(evaluate.Counted, "choose", tells)
    before, place = signal.getsignal(signal.SIGINT), tmp_path / "play.json"
    asked = ["--agent", "random", "--against", "most_damage", "--formats", "gen9randombattle", "gen1ou"]
    asked += ["--battles", "6", "--lanes", "3", "--json"]
    assert evaluate.main([*asked, str(place)]) == 130
    row, *_, last = capsys.readouterr().out.strip().splitlines()[1:]
    assert row.split()[:4] == ["gen9randombattle", "random", "most_damage", "3"]
    assert last == f"stopped: these battles were played out, and no others; no {place} yet: the same command goes on"
    assert not place.exists()
    assert signal.getsignal(signal.SIGINT) is before
    played = []

    def counted(sim, plan, **options):
        return play(sim, (played.append(match) or match for match in plan), **options)

    monkeypatch.setattr(evaluate, "play", counted)
    assert evaluate.main([*asked, str(place)]) == 0
    assert len(played) == 12 - 3
    assert evaluate.main([*asked, str(tmp_path / "whole.json")]) == 0
    reports = [json.loads(path.read_text()) for path in (place, tmp_path / "whole.json")]
    assert reports[0]["results"] == reports[1]["results"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["play.json", "whole.json"]


def test_what_another_command_left_is_no_part_of_this_one(tmp_path):
    place = tmp_path / "play.json"
    base = ["--agent", "random", "--against", "boss", "--formats", "gen1ou", "--json", str(place)]

    def rows(*more, battles="4"):
        return evaluate.run(evaluate.parser().parse_args([*base, "--battles", battles, *more]))

    rows()
    journal = tmp_path / "play.json.part" / evaluate.JOURNAL
    assert len(journal.read_text().splitlines()) == 5
    with pytest.raises(BattleError, match=r"begun with another seed \(0 → 7\): repeat .* a fresh --json"):
        rows("--seed", "7")
    assert len(journal.read_text().splitlines()) == 5
    longer = rows(battles="6")  # no other command: it goes on behind them
    assert (longer["battles_before"], longer["results"][0]["battles"]) == (4, 6)


def test_an_agent_whose_code_was_changed_is_another(tmp_path, monkeypatch):
    file = tmp_path / "own_player.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    told = []
    for text in ("class Own: pass\n", "class Own: name = 'mended'\n"):
        file.write_text(text)
        told.append(code_of(importlib.import_module("own_player").Own()))
    assert told[0] != told[1]
    assert code_of(type("Own", (), {"__module__": "nowhere"})()) == ""


@pytest.mark.parametrize("head", ["[1]", '{"a": 1}', "1", "no JSON"])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path, head):
    place = tmp_path / "battles.jsonl"
    place.write_text(f"{head}\n")
    with pytest.raises(BattleError, match="is no journal of battles: give a fresh --out"):
        Journal(place, {"seed": 1}, "--out")
    assert place.read_text() == f"{head}\n"


@pytest.mark.slow
def test_a_resumed_evaluation_records_each_battle_once(tmp_path, monkeypatch):
    """A disk that is full for one file ends the command; that battle is played and recorded by the next start."""
    record, full = Recorder.record, []

    def once(self, outcome, *names):
        written = record(self, outcome, *names)
        if not full:
            full.append(True)
            raise CannotRecord("planted")
        return written

    monkeypatch.setattr(Recorder, "record", once)
    base = ["--agent", "random", "--against", "boss", "--formats", "gen1ou", "--battles", "4", "--lanes", "2"]
    asked = [*base, "--json", str(tmp_path / "play.json"), "--record", str(tmp_path / "battles")]
    assert evaluate.main(asked) == 1
    assert evaluate.main(asked) == 0
    assert len(list((tmp_path / "battles").rglob("*.lz4"))) == 8
    assert not (tmp_path / "play.json.part").exists()


def test_a_failure_shows_what_was_played_before(monkeypatch, capsys, tmp_path):
    choose, calls = evaluate.Counted.choose, []

    def fails(self, observations):
        calls.append(observations[0].lane)
        if calls[-1].startswith("0.1.1"):  # of the second pair, one at a time
            raise BattleError("on purpose")
        return choose(self, observations)

    monkeypatch.setattr(evaluate.Counted, "choose", fails)
    place = tmp_path / "play.json"
    command = ["--agent", "random", "--against", "boss", "--battles", "6", "--lanes", "1", "--json", str(place)]
    assert evaluate.main(command) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[1].split()[:4] == ["gen1ou", "random", "boss", "2"]
    assert "error: on purpose: these battles were played before, and no others; no " in said.err
    assert not place.exists()


def test_a_format_named_twice_is_played_and_counted_once():
    report = evaluate.run(arguments("--battles", "2", "--formats", "gen1ou", "gen1ou"))
    assert [(row["format"], row["battles"]) for row in report["results"]] == [("gen1ou", 2)]
    assert report["formats"] == ["gen1ou"]


@pytest.mark.slow
def test_random_against_itself_is_even():
    args = evaluate.parser().parse_args(
        ["--agent", "random", "--against", "random", "--formats", "gen9randombattle", "--battles", "24"]
    )
    (row,) = evaluate.run(args)["results"]
    low, high = row["interval95"]
    assert low < 0.5 < high


def test_a_baseline_of_ones_own_plays_where_the_docs_put_it(monkeypatch, capsys):
    page = (ROOT / "docs" / "playing.md").read_text(encoding="utf-8")
    told = page[page.index("One of your\nown needs") :]
    code = told[told.index("    class ") : told.index("\n\n###")]
    assert "a place in `BASELINES` of `battle/players.py`" in told
    exec(textwrap.dedent(code), made := {})
    monkeypatch.setitem(players.BASELINES, "first", made["First"])
    assert evaluate.main(["--agent", "first", "--against", "random", "--battles", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["gen1ou", "first", "random", "2"]


def test_evaluation_says_what_is_wrong(capsys):
    assert evaluate.main(["--agent", "nobody", "--battles", "1"]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert evaluate.main(["--agent", "random", "--against", "random", "--formats", "gen77ou", "--battles", "1"]) == 1
    assert "gen77ou" in capsys.readouterr().err


def test_teams_that_are_missing_are_said_before_the_first_battle(tmp_path, monkeypatch, capsys):
    for file in team_files("gen1ou", None, "evaluation"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(evaluate, "play", lambda *_, **__: pytest.fail("played"))
    command = ["--agent", "random", "--against", "boss", "--formats", "gen1ou", "gen2ou", "--teams", str(tmp_path)]
    assert evaluate.main([*command, "--battles", "2"]) == 1
    assert "no *.gen2ou_team file" in capsys.readouterr().err


def labels(*texts):
    return [spec.label for spec in parse_players(texts)]


def test_players_of_one_name_are_told_apart():
    assert labels("runs/new/model", "runs/old/model", "random") == ["new/model", "old/model", "random"]
    assert labels("/x/a/model", "/y/a/model", "b/model") == ["x/a/model", "y/a/model", "b/model"]
    assert labels("random", "runs/random") == ["random", "runs/random"]
    assert labels("random", "random:weight=2") == ["random", "random"]  # one player, named twice
    for texts in (("a=random", "a=boss"), ("x/m:temperature=1", "x/m"), ("a=x/m", "a=y/m")):
        with pytest.raises(BattleError, match="give one of them another label"):
            parse_players(texts)


def test_an_agent_that_answers_too_few_is_named(monkeypatch, capsys):
    class Silent(RandomAgent):
        name = "silent"

        def choose(self, observations):
            return []

    monkeypatch.setitem(players.BASELINES, "silent", Silent)
    assert evaluate.main(["--agent", "silent", "--against", "random", "--formats", "gen1ou", "--battles", "2"]) == 1
    assert "player 'silent': choose gave 0 actions for 2 observations" in capsys.readouterr().err


def test_no_opponent_is_left_out_for_its_name(capsys):
    command = ["--formats", "gen1ou", "--battles", "2", "--agent"]
    assert evaluate.main([*command, "a=type_switch", "--against", "a=random", "boss"]) == 1
    assert "'type_switch' and 'random': both would be called 'a'" in capsys.readouterr().err
    report = evaluate.run(evaluate.parser().parse_args([*command, "random", "--against", "random", "boss"]))
    assert [(row["player"], row["opponent"]) for row in report["results"]] == [("random", "boss")]


def test_a_report_that_cannot_be_written_is_refused_before_play(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "report.json"):
        with pytest.raises(SystemExit) as end:
            evaluate.main(["--agent", "random", "--against", "boss", "--json", str(place)])
        assert end.value.code == 2
        assert f"argument --json: '{place}': cannot be written: give another file" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--battles", "--lanes", "--processes", "--turn-limit"])
@pytest.mark.parametrize("value", ["0", "-2", "some"])
def test_a_count_of_nothing_is_refused(option, value, capsys):
    with pytest.raises(SystemExit) as end:
        evaluate.main(["--agent", "random", "--against", "boss", f"{option}={value}"])
    assert end.value.code == 2
    assert f"argument {option}: '{value}': give a whole number of 1 or more" in capsys.readouterr().err


@pytest.fixture
def env():
    made = BattleEnv("gen9ou", opponent="most_damage", render_mode="ansi")
    yield made
    made.close()


def test_environment_passes_gymnasiums_checker(env):
    check_env(env, skip_render_check=True)


def test_environment_plays_battles_through_and_again(env):
    runs = []
    for _ in range(2):
        observation, info = env.reset(seed=4)
        total, done = 0.0, False
        env.action_space.seed(1)
        while not done:
            assert env.observation_space.contains(observation)
            action = env.action_space.sample(info["action_mask"])
            observation, reward, terminated, truncated, info = env.step(action)
            total += reward
            done = terminated or truncated
        assert info["won"] != info["lost"]
        assert (total > 50) == info["won"]
        runs.append((total, info["turn"]))
    assert runs[0] == runs[1]
    assert "against" in env.render()


def test_environment_refuses_what_the_mask_refuses(env):
    _, info = env.reset(seed=4)
    for _ in range(40):
        refused = np.flatnonzero(info["action_mask"] == 0)
        if len(refused):
            break
        *_, info = env.step(int(np.flatnonzero(info["action_mask"])[-1]))
    for action in (int(refused[0]), 13, -1):
        with pytest.raises(BattleError, match="not legal"):
            env.step(action)


def test_an_environment_that_cannot_be_leaves_no_process(monkeypatch, tmp_path):
    made, start = [], Simulator.__init__
    monkeypatch.setattr(Simulator, "__init__", lambda sim: made.append(sim) or start(sim))
    for options in ({"battle_format": "gen77ou"}, {"teams": tmp_path}):
        with pytest.raises(BattleError):
            BattleEnv(**options)
    assert [worker.process.poll() is None for sim in made for worker in sim.workers] == [False, False]


class Trapper:
    """Brings Dugtrio, whose ability holds the foe, and leaves it there."""

    name = "trapper"

    def choose(self, observations):
        chosen = []
        for o in observations:
            bench = sorted(pokemon["name"] for pokemon in o.state["available_switches"])
            place = 4 + bench.index("dugtrio") if "dugtrio" in bench else 0
            chosen.append(place if o.legal[place] else int(o.legal.argmax()))
        return chosen


def test_environment_tells_of_an_action_taken_back(tmp_path):
    """Against a hidden trap: the same observation, without the switches, and no reward for it."""
    trapper = next(path for path in team_files("gen3ou", None, "training") if "Dugtrio" in path.read_text())
    (tmp_path / trapper.name).write_text(trapper.read_text())
    env = BattleEnv("gen3ou", opponent=Trapper(), teams=tmp_path)
    observation, info = env.reset(seed=1)
    retries = 0
    for _ in range(400):
        mask = info["action_mask"]
        *_, action = np.flatnonzero(mask)  # a switch, where there is one
        before, (observation, reward, terminated, truncated, info) = observation, env.step(int(action))
        if info["retry"]:
            retries += 1
            assert all(np.array_equal(before[key], observation[key]) for key in before)
            assert (info["action_mask"] <= mask).all()
            assert (info["action_mask"][action], reward) == (0, 0)
        if terminated or truncated:
            observation, info = env.reset()
    env.close()
    assert retries > 0


def test_vector_environment():
    envs = make_vector(2, battle_format="gen1ou", opponent="random")
    observation, info = envs.reset(seed=1)
    assert observation["words"].shape[0] == 2
    actions = [int(np.flatnonzero(mask)[0]) for mask in info["action_mask"]]
    _, reward, *_ = envs.step(np.array(actions))
    assert reward.shape == (2,)
    envs.close()


class Follower(RandomAgent):
    """Keeps the states that it was asked about, by lane, and the lanes whose end it was told."""

    def __init__(self):
        super().__init__()
        self.seen, self.ended = {}, []

    def choose(self, observations):
        for o in observations:
            assert o.first == (o.lane not in self.seen)
            self.seen.setdefault(o.lane, []).append(o.state["player_active_pokemon"]["base_species"])
        return super().choose(observations)

    def end(self, lane):
        super().end(lane)
        self.ended.append(lane)


def test_environments_that_share_an_opponent_keep_its_battles_apart():
    opponent = Follower()
    envs = make_vector(2, battle_format="gen1ou", opponent=opponent)
    _, info = envs.reset(seed=[1, 2])
    for _ in range(5):
        _, _, _, _, info = envs.step(np.array([int(np.flatnonzero(mask)[0]) for mask in info["action_mask"]]))
    assert len(opponent.seen) == 2
    envs.close()


@pytest.mark.parametrize("way", ["truncated", "reset", "closed", "lost"])
def test_the_opponent_is_told_of_every_battles_end(way):
    opponent = Follower()
    env = BattleEnv("gen1ou", opponent=opponent, turn_limit=1 if way == "truncated" else 300)
    _, info = env.reset(seed=1)
    done = False
    while not opponent.seen or (way == "truncated" and not done):
        _, _, _, done, info = env.step(int(np.flatnonzero(info["action_mask"])[0]))
    if way == "reset":
        env.reset()
    elif way == "lost":
        env.sim.workers[0].process.kill()
        with pytest.raises(BattleError, match="call reset and go on"):
            env.step(int(np.flatnonzero(info["action_mask"])[0]))
    env.close()
    assert set(opponent.ended) == set(opponent.seen)
    assert len(opponent.ended) == len(opponent.seen)


HOST = """
import sys, time
from battle.local_server import LocalServer
with LocalServer(int(sys.argv[1])) as server:
    print(server.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.timeout(60)
def test_a_server_does_not_outlive_a_command_that_is_killed():
    port = free_port()
    command = subprocess.Popen([sys.executable, "-c", HOST, str(port)], cwd=ROOT, stdout=subprocess.PIPE)
    pid = int(command.stdout.readline())
    command.kill()
    command.wait(20)
    ended = time.monotonic() + 20
    while listening(port) and time.monotonic() < ended:
        time.sleep(0.05)
    if listening(port):
        os.kill(pid, signal.SIGKILL)
        pytest.fail("the server still listens")


def test_a_taken_port_is_said():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerTrouble, match=f"port {port} is taken"), LocalServer(port):
            pass


def test_a_public_server_needs_its_full_name_and_credentials(monkeypatch, capsys):
    monkeypatch.delenv("PS_USERNAME", raising=False)
    assert ladder.main(["--server", "somewhere"]) == 1
    assert "full address" in capsys.readouterr().err
    assert ladder.main(["--server", "wss://example.invalid/showdown/websocket"]) == 1
    assert "PS_USERNAME" in capsys.readouterr().err


def live(port, name, out, *more):
    base = ["--server", "local", "--port", str(port), "--format", "gen9ou", "--name", name, "--battles", "1"]
    args = ladder.parser().parse_args([*base, "--out", str(out), *more])
    return ladder.live(args)


@pytest.mark.timeout(120)
def test_live_battle_on_a_local_server(tmp_path):
    port, results = 8047, {}
    with LocalServer(port):
        waiting = threading.Thread(
            daemon=True,
            target=lambda: results.update(
                a=live(port, "Turn A", tmp_path, "--agent", "type_switch", "--replays", str(tmp_path / "pages"))
            ),
        )
        waiting.start()
        results["b"] = live(
            port,
            "Turn B",
            tmp_path,
            "--agent",
            "random",
            "--mode",
            "challenge",
            "--opponent",
            "Turn A",
            "--lead",
            "random",
        )
        waiting.join(60)
    assert {results["a"][0], results["b"][0]} == {"won", "lost"}
    files = list((tmp_path / "gen9ou").glob("*.lz4"))
    assert len(files) == 2
    for path in files:
        battle = read_battle(path)
        assert min(battle.actions[:-1]) >= 0
        assert battle.states[-1].battle_won != battle.states[-1].battle_lost
        assert battle.states[0].opponent_teampreview
    assert "|win|" in next((tmp_path / "pages").glob("*.html")).read_text()


def test_report_is_json(tmp_path):
    path = tmp_path / "sub" / "report.json"
    assert (
        evaluate.main(
            [*["--agent", "random", "--against", "boss", "--formats", "gen1ou", "--battles", "2", "--json"], str(path)]
        )
        == 0
    )
    assert json.loads(path.read_text())["results"][0]["battles"] == 2
