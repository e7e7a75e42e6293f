"""The trained agent: a saved model folder and the data room's encoder, joined; states in, decisions out.

It travels with every saved model (imports flattened), so a folder acts without this repository:

    from transformers.dynamic_module_utils import get_class_from_dynamic_module
    agent = get_class_from_dynamic_module("agents.TurnwiseAgent", FOLDER_OR_NAME).from_pretrained(FOLDER_OR_NAME)
"""

import argparse
import json
import math
import sys
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from battle.decision import Decision, describe_action
from battle.saved_agent import check_stamps, load
from data.encode import Encoder
from data.schema import (
    LeanState,
    bad_from_validation,
)
from data.tokenizer import Tokenizer
from model.modeling_turnwise import TurnwiseForOfflineRL

_lean = msgspec.json.Decoder(LeanState)
# What the network reads of a turn.
_TURN = {
    "words": np.int32,
    "numbers": np.float32,
    "prev_action": np.int64,
    "prev_action_known": np.bool_,
    "prev_reward": np.float32,
    "legal": np.bool_,
}


class _Lane:
    """One battle side in play: its encoder and the arrays of the turns that the window may still need."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder.live()
        self.turns: list[dict[str, Any]] = []
        self.action, self.count = -1, 0


class TurnwiseAgent:
    """A policy over many battles at once, each in a lane with its own key-value cache.

    gamma: whose policy acts (None: the model's default). beta: how far it leans on its critics, per unit of unscaled
    return (None: the model's default): the policy at play is π(a)·exp(β·Q(a)), the best one of those equally far from
    π (one step of policy improvement: Peng et al. 2019, eq. 7; Brandfonbrener et al. 2021). temperature: 0 plays the
    most likely action, otherwise samples from that policy sharpened by it. Equal states, seeds and lanes give equal
    actions. Raises ValueError where a stamp, gamma, beta, temperature or seed does not fit.
    """

    def __init__(
        self,
        network: TurnwiseForOfflineRL,
        tokenizer: Tokenizer,
        gamma: float | None = None,
        beta: float | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        calibration: dict | None = None,
        name: str = "turnwise",
    ):
        config = network.config
        check_stamps(config, tokenizer, name)
        if not 0 <= temperature < math.inf:  # NaN, too
            raise ValueError(f"{name}: temperature={temperature}: give a number of 0 or more")
        self.beta = config.act_beta if beta is None else beta
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"{name}: beta={beta}: give a number of 0 or more")
        if seed < 0:
            raise ValueError(f"{name}: seed={seed}: give a whole number of 0 or more")
        self.network, self.name, self.temperature, self.seed = network.eval(), name, temperature, seed
        self._gamma_index = config.gamma_index(gamma)
        self.gamma = config.gammas[self._gamma_index]
        # Read once: a transformers config answers slowly.
        self._max_turns, self._n_actions, self._reward_kind = config.max_turns, config.n_actions, config.reward_kind
        self._reward_scale = config.reward_scale
        self._encoder = Encoder(config.observation_space, tokenizer)
        self._calibration = calibration
        # Per observation of the last `choose`: what the policy gave to choices that the live request refuses.
        self.refused_mass: list[float] = []
        self._lanes: dict[Any, tuple[int, _Lane]] = {}
        self._cache = network.new_cache(1)
        self._free = [0]

    @classmethod
    def from_pretrained(cls, folder_or_name: str | Path, *, device: str = "cpu", dtype: str = "float32", **options):
        """Load a model folder, a checkpoint that holds one, or a model of the Hugging Face Hub.

        dtype: float32, bfloat16 or float16. options: gamma, beta, temperature, seed. Raises FileNotFoundError, or
        ValueError where the stamps disagree, a file is cut, or the device is not here.
        """
        network, tokenizer, calibration = load(folder_or_name, device, dtype)
        return cls(network, tokenizer, calibration=calibration, name=str(folder_or_name), **options)

    def decide(self, states: Sequence, actions: Sequence[int] | None = None, legal: Sequence[bool] | None = None):
        """A `Decision` for the last of a battle's states so far.

        states: dicts or structs in the universal state schema. actions: those taken before, one fewer than states
        (None: unknown, and a warning, for the agent acts by what it did as well). legal: 13 booleans to intersect with
        the state's own (the live request's).
        """
        if not states:
            raise ValueError("states: empty: give at least the battle's current state")
        lane = _Lane(self._encoder)
        if actions is None:
            actions = [-1] * (len(states) - 1)
            if actions and self.network.config.use_previous_action:
                warnings.warn(
                    f"actions: none given for {len(states)} states: the agent acts by what it did before as well, and "
                    "does otherwise here than in a battle; give the actions taken, -1 where one is unknown",
                    stacklevel=2,
                )
        actions = self._sound(actions)
        if len(actions) != len(states) - 1:
            raise ValueError(f"actions: {len(actions)} for {len(states)} states: give one for each but the last")
        for state, previous in zip(states, [-1, *actions], strict=True):
            lane.action = previous
            self._add_turn(lane, state)
        window = lane.turns[-self._window_length(len(states)) :]
        out = self.network.step(self._to_device(self._stack([window])), self.network.new_cache(1), self._slots([0]))
        allowed = window[-1]["legal"]
        if legal is not None:
            if len(legal) < len(allowed):
                raise ValueError(f"legal: {len(legal)} values: give one for each of {len(allowed)} actions")
            allowed = allowed & np.asarray(legal, dtype=bool)[: len(allowed)]
        return self._decision(states[-1], lane, out.logits[-1], out.q_values[-1], allowed)

    @torch.inference_mode()
    def decide_all(self, states: Sequence, actions: Sequence[int]) -> list[Decision]:
        """A `Decision` for every state of a battle, as `decide` would give them one by one, each turn read once.

        actions: those taken, one for each state but the last (a last one is passed over, as battle files have it).
        """
        if not states:
            return []
        if len(actions) not in (len(states) - 1, len(states)):
            raise ValueError(f"actions: {len(actions)} for {len(states)} states: give one for each but the last")
        lane, cache, slot = _Lane(self._encoder), self.network.new_cache(1), self._slots([0])
        decisions = []
        for state, previous in zip(states, [-1, *self._sound(actions)[: len(states) - 1]], strict=True):
            lane.action = previous
            self._add_turn(lane, state)
            fed = lane.turns[-1:]
            if int(cache.length[0]) == self._max_turns:
                cache.length[0] = 0
                fed = lane.turns[-(self._max_turns // 2) - 1 :]
            out = self.network.step(self._to_device(self._stack([fed])), cache, slot)
            decisions.append(self._decision(state, lane, out.logits[-1], out.q_values[-1], fed[-1]["legal"]))
        return decisions

    def choose_lead(self, previews: Sequence[Sequence]) -> int:
        """The place of the Pokémon that shall come to the field first: the one of the highest value (`lead_values`)."""
        return int(np.argmax(self.lead_values(previews)))

    @torch.inference_mode()
    def lead_values(self, previews: Sequence[Sequence]) -> list[float]:
        """For each Pokémon that may lead the expected shaped return at `gamma` (as `Decision.values`), in the mean over
        those that the opponent may send.

        previews: for each one a row of the states that may follow team preview, one against each of the opponent's.
        """
        rows = []
        for state in chain.from_iterable(previews):
            lane = _Lane(self._encoder)
            self._add_turn(lane, state)
            rows += lane.turns
        battles = torch.arange(len(rows) + 1, device=self.network.device)
        turns = {key: value[0] for key, value in self._to_device(self._stack([rows])).items()}
        ends = battles.to(torch.int32)
        out = self.network(**turns, position=0 * battles[:-1], segment=ends[:-1], cu_seqlens=ends)
        policy = out.logits[:, self._gamma_index].double().softmax(-1)
        values = (policy * self._mean_q(out.q_values[:, self._gamma_index])).sum(-1).cpu().numpy()
        bounds = pairwise(np.cumsum([0, *(len(row) for row in previews)]))
        return [float(values[begin:end].mean()) for begin, end in bounds]

    @torch.inference_mode()
    def choose(self, observations: Sequence) -> list[int]:
        """One action per observation (`battle.interface.Observation`), all lanes in one forward of the network."""
        if not observations:
            return []
        slots, lanes = zip(*(self._lane(seen.lane, seen.first) for seen in observations), strict=True)
        for seen, slot, lane in zip(observations, slots, lanes, strict=True):
            if seen.retry:
                # The battle took the last choice back: the same turn is decided again.
                self._cache.length[slot] -= 1
            else:
                self._add_turn(lane, _read(seen.raw))
        self._slide(slots, lanes)
        turns = self._stack([lane.turns[-1:] for lane in lanes])
        out = self.network.step(self._to_device(turns), self._cache, self._slots(slots), with_q=self.beta > 0)
        logits = self._acting(out.logits, out.q_values).cpu().numpy()
        own = turns["legal"][:, 0]
        allowed = own & np.array([seen.legal for seen in observations], dtype=bool)[:, : own.shape[1]]
        probs = np.exp(logits - logits.max(1, keepdims=True))
        self.refused_mass = ((probs * (own & ~allowed)).sum(1) / probs.sum(1)).tolist()
        chosen = []
        for seen, lane, row, mask in zip(observations, lanes, logits, allowed, strict=True):
            lane.action = self._sample(row, mask, (self.seed, seen.seed, lane.count, seen.retry))
            chosen.append(lane.action)
        return chosen

    def note_action(self, lane: Any, action: int) -> None:
        """Tell which action a lane really took, where another than the chosen one was played; −1: nobody knows."""
        self._lanes[lane][1].action = action

    def end(self, lane: Any) -> None:
        """Free a lane whose battle is over."""
        slot, _ = self._lanes.pop(lane)
        self._free.append(slot)

    def _sound(self, actions: Sequence[int]) -> list[int]:
        for at, action in enumerate(actions):
            if not isinstance(action, (int, np.integer)) or not -1 <= action < self._n_actions:
                most = self._n_actions - 1
                raise ValueError(f"actions[{at}]: {action!r} is no action: give 0 to {most}, or -1 where it is unknown")
        return list(actions)

    def _lane(self, key: Any, first: bool) -> tuple[int, _Lane]:
        if first and key in self._lanes:
            self.end(key)
        if key not in self._lanes:
            if not self._free:
                self._grow()
            slot = self._free.pop()
            self._cache.length[slot] = 0
            self._lanes[key] = (slot, _Lane(self._encoder))
        return self._lanes[key]

    def _grow(self) -> None:
        old, held = self._cache, len(self._cache.length)
        self._cache = self.network.new_cache(2 * held)
        self._cache.keys[:, :held], self._cache.values[:, :held] = old.keys, old.values
        self._cache.length[:held] = old.length
        self._free = list(range(2 * held - 1, held - 1, -1))

    def _add_turn(self, lane: _Lane, state: Any) -> None:
        words, numbers, legal = lane.encoder.add(state)
        lane.count += 1
        lane.turns.append(
            {
                "words": words,
                "numbers": numbers,
                "prev_action": max(lane.action, 0),
                "prev_action_known": lane.action >= 0,
                "prev_reward": lane.encoder.reward(self._reward_kind),
                "legal": legal[: self._n_actions],
            }
        )
        del lane.turns[: -self._max_turns]

    def _window_length(self, turns: int) -> int:
        """Turns in the window of a battle's state number `turns`: grows to `max_turns`, then restarts at half of it,
        the newest turns re-read as the start of a window, which is how training cuts a long battle."""
        longest = self._max_turns
        half = longest // 2
        return turns if turns <= longest else half + (turns - longest - 1) % (longest - half) + 1

    def _slide(self, slots: Sequence[int], lanes: Sequence[_Lane]) -> None:
        """Where a window is full, start it again with the newest half (all but the turn about to be fed)."""
        lengths = self._cache.length.tolist()
        for slot, lane in zip(slots, lanes, strict=True):
            if lengths[slot] < self._max_turns:
                continue
            self._cache.length[slot] = 0
            kept = self._stack([lane.turns[-(self._max_turns // 2) - 1 : -1]])
            self.network.step(self._to_device(kept), self._cache, self._slots([slot]), with_q=False)

    @staticmethod
    def _stack(lanes: list[list[dict[str, Any]]]) -> dict[str, np.ndarray]:
        """Turns of lanes, equally many of each, as arrays [lanes, turns, …]."""
        turns = [turn for lane in lanes for turn in lane]
        rows = {key: np.array([turn[key] for turn in turns], dtype=dtype) for key, dtype in _TURN.items()}
        return {key: value.reshape(len(lanes), -1, *value.shape[1:]) for key, value in rows.items()}

    def _to_device(self, rows: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        device = self.network.device
        return {key: torch.from_numpy(value).to(device) for key, value in rows.items()}

    def _slots(self, slots: Sequence[int]) -> torch.Tensor:
        return torch.tensor(slots, dtype=torch.int64, device=self.network.device)

    def _sample(self, logits: np.ndarray, allowed: np.ndarray, seed: int | tuple[int, ...]) -> int:
        """An allowed action (any, where none is): the most likely one, or drawn by `seed` at the temperature."""
        masked = np.where(allowed, logits, -np.inf) if allowed.any() else logits
        if self.temperature == 0:
            return int(masked.argmax())
        weights = np.exp((masked - masked.max()) / self.temperature)
        return int(np.random.default_rng(seed).choice(len(weights), p=weights / weights.sum()))

    def _acting(self, logits: torch.Tensor, q_values: torch.Tensor | None) -> torch.Tensor:
        """Logits of the policy that acts, fp64 [n,A], from those of all discounts [n,G,A] and, where β is above 0, the
        critics' values [n,G,C,A]."""
        policy = logits[:, self._gamma_index].double()
        return policy if self.beta == 0 else policy + self.beta * self._mean_q(q_values[:, self._gamma_index])

    def _mean_q(self, q_values: torch.Tensor) -> torch.Tensor:
        """The critics' mean in unscaled return, fp64 [n,A], of their values [n,C,A]."""
        return q_values.double().mean(1) / self._reward_scale

    def _decision(
        self, state: Any, lane: _Lane, logits: torch.Tensor, q_values: torch.Tensor, legal: np.ndarray
    ) -> Decision:
        config = self.network.config
        mask = torch.tensor(legal, device=logits.device)
        # Nothing allowed: no probability anywhere, and values by the policy over all actions, which stay finite.
        counted = mask if legal.any() else ~mask
        probs = logits.double().masked_fill(~counted, -torch.inf).softmax(-1)
        mean_q = self._mean_q(q_values)
        values = (probs * mean_q).sum(-1).tolist()
        index = self._gamma_index
        # No battle's seed is known here: each state draws by what is seen in it and by its place in the battle.
        turn = lane.turns[-1]
        seen = zlib.crc32(turn["numbers"].tobytes(), zlib.crc32(turn["words"].tobytes()))
        acting = self._acting(logits[None], q_values[None])[0]
        action = self._sample(acting.cpu().numpy(), legal, (self.seed, lane.count, seen))
        per_gamma = dict(zip(config.gammas, values, strict=True))
        return Decision(
            action=action,
            words=describe_action(state, action),
            gamma=self.gamma,
            beta=self.beta,
            probabilities=torch.where(mask, acting.masked_fill(~counted, -torch.inf).softmax(-1), 0.0).tolist(),
            values=per_gamma,
            q_values=mean_q[index].tolist(),
            win_chance=self.win_chance(per_gamma[self.gamma], self.gamma),
        )

    def win_chance(self, value: float, gamma: float) -> float | None:
        """The chance to win that a value at discount γ says, calibrated on training battles; None if never fitted."""
        fitted = (self._calibration or {}).get("gammas", {}).get(str(gamma))
        if fitted is None:
            return None
        return 1 / (1 + math.exp(-(fitted["slope"] * value + fitted["intercept"])))


def _read(raw: bytes) -> LeanState:
    """A state's JSON as the encoder reads it, as training reads it of the file. Raises BadBattle naming the field."""
    try:
        return _lean.decode(raw)
    except msgspec.ValidationError as error:
        raise bad_from_validation(error) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Read states (a JSON object, a list, or {"states": …, "actions": …}) and print the decision for the last one."""
    parser = argparse.ArgumentParser(prog="python -m battle.agents", description=main.__doc__)
    parser.add_argument("--checkpoint", required=True, help="a saved model's folder, a run's, or a name on the Hub")
    parser.add_argument("--state", default="-", help="JSON file of the state or states; - reads standard input")
    parser.add_argument("--gamma", type=float, help="whose policy acts (default: the model's)")
    parser.add_argument("--beta", type=float, help="how far it leans on its critics (default: the model's)")
    arguments = parser.parse_args(argv)
    try:
        agent = TurnwiseAgent.from_pretrained(arguments.checkpoint, gamma=arguments.gamma, beta=arguments.beta)
    except (ValueError, OSError) as error:  # names the model's folder
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        text = sys.stdin.read() if arguments.state == "-" else Path(arguments.state).read_text(encoding="utf-8")
        content = json.loads(text)
        battle = content if isinstance(content, dict) and "states" in content else {"states": content}
        states = battle["states"] if isinstance(battle["states"], list) else [battle["states"]]
        actions = battle.get("actions")  # with the last one's, as in a battle file, or without
        decision = agent.decide(states, actions and actions[: len(states) - 1])
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {arguments.state}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(decision), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
