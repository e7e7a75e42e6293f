"""The environment for others: gymnasium's own checks, whole battles, masks, opponents told of every end."""

from contextlib import closing

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from battle.baselines import RandomAgent
from battle.env import BattleEnv, make_vector
from battle.errors import BattleError
from battle.simulator import Simulator
from battle.teams import team_files
from data.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures("lent")


@pytest.fixture
def env():
    made = BattleEnv("gen9ou", opponent="most_damage", render_mode="ansi")
    yield made
    made.close()


def test_environment_passes_gymnasiums_checker(env):
    check_env(env, skip_render_check=True)


def test_environment_plays_battles_through_and_again(env, monkeypatch):
    runs, heard, step = [], [], env.sim.step
    monkeypatch.setattr(env.sim, "step", lambda: [heard.append(event.event) or event for event in step()])
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
    assert set(heard) == {"ask", "end"}  # nobody acted who was not asked
    assert "against" in env.render()


def test_a_closed_environment_begins_no_battle(env):
    env.reset(seed=1)
    for _ in range(2):  # gymnasium's wrappers close twice
        env.close()
        with pytest.raises(BattleError, match="was closed"):
            env.reset()


def test_observations_are_in_the_words_of_a_models_own_vocabulary(env, tmp_path):
    shipped = Tokenizer.load()
    grown = Tokenizer([*reversed(shipped.words[2:]), "<gen10ou>", "sproutling"])
    grown.save(tmp_path / "vocabulary.json")
    with closing(BattleEnv("gen9ou", opponent="most_damage", vocabulary=tmp_path / "vocabulary.json")) as own:
        assert own.observation_space["words"].high.max() == len(shipped) + 1
        ours, theirs = (each.reset(seed=4)[0]["words"] for each in (env, own))
        assert own.observation_space["words"].contains(theirs)
    assert grown.words_of(theirs) == shipped.words_of(ours)
    assert shipped.unknown_id not in theirs
    assert not np.array_equal(ours, theirs)
    with pytest.raises(ValueError, match="cannot be read as a vocabulary"):
        BattleEnv(vocabulary=tmp_path / "none.json")


def test_environment_refuses_what_the_mask_refuses(env):
    assert env.render() is None  # nothing has begun
    _, info = env.reset(seed=4)
    for _ in range(40):
        refused = np.flatnonzero(info["action_mask"] == 0)
        if len(refused):
            break
        *_, info = env.step(int(np.flatnonzero(info["action_mask"])[-1]))
    for action in (int(refused[0]), 13, -1):
        with pytest.raises(BattleError, match="not legal"):
            env.step(action)
    with pytest.raises(TypeError):
        env.step(0.5)
    env.asked[0].legal = 0  # where nothing is legal the battle takes its default
    env.step(12)


def test_an_environment_that_cannot_be_leaves_no_process(monkeypatch, lent, tmp_path):
    lent.undo()
    made, start = [], Simulator.__init__
    monkeypatch.setattr(Simulator, "__init__", lambda sim: made.append(sim) or start(sim))
    for options in ({"battle_format": "gen77ou"}, {"teams": tmp_path}, {"teams": str(tmp_path)}):
        with pytest.raises(BattleError):
            BattleEnv(**options)
    with pytest.raises(ValueError, match="reward 'shapely' is unknown"):
        BattleEnv(reward="shapely")  # at once, and not at the first step
    assert [worker.process.poll() is None for sim in made for worker in sim.workers] == [False] * 3


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
    """Keeps the states that it was asked about, by lane, the seeds, and the lanes whose end it was told."""

    wants_requests = wants_lines = True

    def __init__(self):
        super().__init__()
        self.seen, self.seeds, self.ended = {}, {}, []

    def choose(self, observations):
        for o in observations:
            assert o.first == (o.lane not in self.seen)
            assert o.request["side"]["id"] == "p2"
            assert o.lines
            self.seeds.setdefault(o.lane, set()).add(o.seed)
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
    assert [len(seeds) for seeds in opponent.seeds.values()] == [1, 1]
    assert len(set.union(*opponent.seeds.values())) == 2
    envs.close()


def test_a_battle_is_drawn_by_the_environments_seed(env, monkeypatch):
    """Teams, one for each chair, and dice: others in each battle, the same where the seed is given again."""
    started, start = [], env.sim.start
    monkeypatch.setattr(env.sim, "start", lambda spec: started.append(spec) or start(spec))
    for seed in (4, None, None, 4):
        env.reset(seed=seed)
    assert all(len(set(spec.teams)) == 2 for spec in started)
    drawn = [(spec.teams, spec.seed, *spec.team_seeds) for spec in started]
    assert drawn[0] == drawn[3]
    assert all(len(set(values)) == 3 for values in zip(*drawn, strict=True))
    assert all(len(set(seeds)) == 3 for _, *seeds in drawn)  # nor are both chairs' random teams one
    assert len(env.sim.home) == 1  # those that were left are over
    env.teams = env.teams[:2]
    for _ in range(5):
        env.reset()
        assert len(set(started[-1].teams)) == 2


def test_a_battle_that_ends_beyond_the_turn_limit_has_ended(monkeypatch):
    opponent = Follower()
    env = BattleEnv("gen1ou", opponent=opponent, turn_limit=0)
    _, info = env.reset(seed=1)
    monkeypatch.setattr(env.sim, "act", lambda lane, actions: env.sim.write(lane, ">forcelose p2"))
    *_, terminated, truncated, info = env.step(int(np.flatnonzero(info["action_mask"])[0]))
    assert (terminated, truncated, info["won"], len(opponent.ended)) == (True, False, True, 1)
    assert env.render() is None  # nobody asked for pictures
    with pytest.raises(BattleError, match="call reset first"):
        env.step(0)
    env.close()


@pytest.mark.parametrize("way", ["truncated", "reset", "closed", "lost"])
def test_the_opponent_is_told_of_every_battles_end(way):
    opponent = Follower()
    env = BattleEnv("gen1ou", opponent=opponent, turn_limit=3 if way == "truncated" else 300)
    _, info = env.reset(seed=1)
    done = False
    while not opponent.seen or (way == "truncated" and not done):
        _, _, _, done, info = env.step(int(np.flatnonzero(info["action_mask"])[0]))
    if way == "truncated":
        assert info["turn"] == 4
        assert not info["action_mask"].any()
    if way == "reset":
        env.reset()
    elif way == "lost":
        env.sim.workers[0].process.kill()
        with pytest.raises(BattleError, match="call reset and go on"):
            env.step(int(np.flatnonzero(info["action_mask"])[0]))
    env.close()
    assert set(opponent.ended) == set(opponent.seen)
    assert len(opponent.ended) == len(opponent.seen)


class Stubborn:
    """Answers with what generation 1 never allows, `answers` times over."""

    name = "stubborn"

    def __init__(self, answers):
        self.answers, self.told = answers, []

    def choose(self, observations):
        return [12] * self.answers

    def note_action(self, lane, action):
        self.told.append((lane, action))


def test_an_opponent_hears_that_its_choice_was_not_played(caplog):
    opponent = Stubborn(1)
    with closing(BattleEnv("gen1ou", opponent=opponent)) as env:
        _, info = env.reset(seed=1)
        env.step(int(info["action_mask"].argmax()))
        assert set(opponent.told) == {(f"{env.lane}/1", -1)}
    assert "side 1: refused: no legal action 12 here" in caplog.text


def test_an_opponent_must_answer():
    with closing(BattleEnv("gen1ou", opponent=Stubborn(0))) as env:
        _, info = env.reset(seed=1)
        with pytest.raises(BattleError, match="choose gave 0 actions for 1 observations"):
            env.step(int(info["action_mask"].argmax()))
