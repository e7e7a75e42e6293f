"""Battles as a gymnasium environment: one player's chair against any of our agents.

    import gymnasium as gym, battle.env
    env = battle.env.BattleEnv("gen1ou", opponent="type_switch")
    observation, info = env.reset(seed=0)
    done = False
    while not done:
        action = env.action_space.sample(info["action_mask"])
        observation, reward, terminated, truncated, info = env.step(action)
        done = terminated or truncated
    env.close()

Observations are the arrays that a model trains on: `words` (int32 token ids [S]) and `numbers` (float32 [F]) of a named
observation space. `info["action_mask"]` is int8 [13] as gymnasium's `sample(mask)` takes it. The reward is one of
`data/reward.py`'s. `make_vector` gives many of them, stepped in one process.
"""

from __future__ import annotations

import itertools
import logging
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from battle.errors import BattleError
from battle.interface import Agent, Observation, answers, bits_to_mask, decode
from battle.play import four_words
from battle.players import make_player, parse_player
from battle.simulator import BattleSpec, Event, Simulator
from battle.teams import load_teams
from data.encode import Encoder
from data.schema import N_ACTIONS
from data.tokenizer import Tokenizer

log = logging.getLogger(__name__)

# Environments may share an opponent, which tells its battles apart by their lanes: no two of a process have one name.
_numbers = itertools.count(1)


class BattleEnv(gym.Env):
    """A battle from player 1's chair.

    battle_format: Showdown's format id. opponent: a player's name (see `battle.players`) or an agent. space:
    observation space. reward: kind. teams: folder of teams, None: our own training teams. turn_limit: truncates.
    vocabulary: file of the word ids, as a model's `vocabulary.json`; None: the one shipped.

    `info["retry"]`: the battle took the last action back (a hidden trap): the same observation, a smaller mask.
    """

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 (gymnasium's own way)

    def __init__(
        self,
        battle_format: str = "gen1ou",
        opponent: str | Agent = "random",
        space: str = "default",
        reward: str = "shaped",
        teams: str | Path | None = None,
        turn_limit: int = 300,
        render_mode: str | None = None,
        vocabulary: str | Path | None = None,
    ):
        self.battle_format, self.reward_kind, self.turn_limit = battle_format, reward, turn_limit
        self.render_mode = render_mode
        self.tokenizer = Tokenizer.load(vocabulary)
        self.encoder = Encoder(space, self.tokenizer)
        self.encoder.live().reward(reward)  # raises ValueError where no reward has this name
        self.opponent = make_player(parse_player(opponent)) if isinstance(opponent, str) else opponent
        self.sim = Simulator()
        try:
            self.sim.check_formats([battle_format])
            self.teams = load_teams(self.sim, battle_format, teams and Path(teams))
        except BaseException:  # whoever looks at it afterwards holds us, and its process with us
            self.sim.close()
            raise
        self.action_space = gym.spaces.Discrete(N_ACTIONS)
        self.observation_space = gym.spaces.Dict(
            {
                "words": gym.spaces.Box(0, len(self.tokenizer) - 1, (self.encoder.space.n_words,), np.int32),
                "numbers": gym.spaces.Box(-2.0, 100.0, (self.encoder.space.n_numbers,), np.float32),
            }
        )
        self.lane = ""
        self.state: dict[str, Any] = {}
        self.asked: list[Event | None] = [None, None]
        self.over, self.closed = True, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Begins a battle; teams and dice are drawn from the environment's generator."""
        super().reset(seed=seed)
        if self.closed:
            raise BattleError("reset: this environment was closed: make another one")
        if not self.over:
            self._leave()
        self.lane = f"env{next(_numbers)}"
        drawn = self.np_random.choice(len(self.teams), size=2, replace=len(self.teams) < 2)
        seeds = [four_words(int(n)) for n in self.np_random.integers(0, 1 << 31, size=3)]
        self.agent_seed = int(self.np_random.integers(1 << 31))
        self.live = self.encoder.live()
        self.first, self.over, self.turn = True, False, 0
        self.asked = [None, None]
        self.state = {}
        self.sim.start(
            BattleSpec(
                lane=self.lane,
                format=self.battle_format,
                seed=seeds[0],
                team_seeds=(seeds[1], seeds[2]),
                teams=tuple(self.teams[i].packed for i in drawn),
                want_requests=(False, getattr(self.opponent, "wants_requests", False)),
                want_lines=(False, getattr(self.opponent, "wants_lines", False)),
            )
        )
        self._advance()
        return self._observe(), self._info()

    def step(self, action: int):
        """Plays an action. One that the mask refuses is an error, as no battle would take it."""
        if self.over:
            raise BattleError("step: the battle is over: call reset first")
        mask, action = self._mask(), operator.index(action)
        if not 0 <= action < N_ACTIONS or (mask.any() and not mask[action]):
            raise BattleError(f"step: action {action} is not legal here (legal: {np.flatnonzero(mask).tolist()})")
        self._answer(action)
        self._advance()
        terminated = self.over
        truncated = not self.over and self.turn > self.turn_limit
        observation = self._observe()
        reward = float(self.live.reward(self.reward_kind))
        if truncated:
            self._leave()
        return observation, reward, terminated, truncated, self._info()

    def render(self) -> str | None:
        if self.render_mode != "ansi" or not self.state:
            return None
        me, foe = self.state["player_active_pokemon"], self.state["opponent_active_pokemon"]
        return f"turn {self.turn}: {me['name']} {me['hp_pct']:.0%} against {foe['name']} {foe['hp_pct']:.0%}"

    def close(self) -> None:
        if not self.over:
            self._end()
        self.sim.close()
        self.closed = True

    def _leave(self) -> None:
        self.sim.drop(self.lane)
        self.sim.step()
        self._end()

    def _end(self) -> None:
        """The battle is over, however it ended: the opponent frees what it keeps of it."""
        self.over = True
        if hasattr(self.opponent, "end") and not self.first:
            self.opponent.end(f"{self.lane}/1")

    def _mask(self) -> np.ndarray:
        asked = self.asked[0]
        return np.zeros(N_ACTIONS, bool) if asked is None else bits_to_mask(asked.legal)

    def _answer(self, action: int) -> None:
        """Both players' actions go in; the opponent is asked if it is to move as well."""
        actions: list[int | None] = [action if self.asked[0] else None, None]
        if self.asked[1]:
            actions[1] = self._opponent(self.asked[1])
        self.asked = [None, None]
        self.sim.act(self.lane, actions)

    def _opponent(self, event: Event) -> int:
        observation = Observation(
            lane=f"{self.lane}/1",
            raw=bytes(event.state),
            legal=bits_to_mask(event.legal),
            first=self.first,
            request=decode(event.request) if bytes(event.request) else None,
            lines=decode(event.lines),
            retry=event.retry,
            seed=self.agent_seed,
        )
        self.first = False
        return answers(self.opponent, [observation])[0]

    def _advance(self) -> None:
        """Goes on until player 1 is to move or the battle is over."""
        while True:
            for event in self.sim.step():
                self._take(event)
            if self.over or self.asked[0]:
                return
            self.sim.act(self.lane, [None, self._opponent(self.asked[1])])
            self.asked[1] = None

    def _take(self, event: Event) -> None:
        if event.event == "ask":
            self.asked[event.side] = event
            self.turn = event.turn
            if event.side == 0:
                self.state = decode(event.state)
        elif event.event == "refused":  # the battle's default is played, as in `battle.play`
            log.warning("%s side %d: refused: %s (chose %r)", event.lane, event.side, event.message, event.choice)
            if event.side == 1 and hasattr(self.opponent, "note_action"):
                self.opponent.note_action(f"{self.lane}/1", -1)
        elif event.event == "end":
            self._end()
            self.state = decode(event.states[0])
        elif event.event == "void":
            self._end()
            raise BattleError(f"the simulator lost the battle: {event.message}: call reset and go on")

    def _observe(self) -> dict[str, np.ndarray]:
        words, numbers, _ = self.live.add(self.state)
        return {"words": words.astype(np.int32), "numbers": numbers}

    def _info(self) -> dict[str, Any]:
        mask = np.zeros(N_ACTIONS, np.int8) if self.over else self._mask().astype(np.int8)
        return {
            "action_mask": mask,
            "state": self.state,
            "turn": self.turn,
            "retry": self.asked[0] is not None and self.asked[0].retry,
            "won": bool(self.state.get("battle_won")),
            "lost": bool(self.state.get("battle_lost")),
        }


def make_vector(count: int, **options: Any) -> gym.vector.VectorEnv:
    """`count` environments of equal options, stepped one after the other in this process."""
    makers: list[Callable[[], gym.Env]] = [lambda: BattleEnv(**options) for _ in range(count)]
    return gym.vector.SyncVectorEnv(makers)
