"""The whole network in plain NumPy and fp64, weight by weight, turn by turn: what each part computes, not how."""

import math

import numpy as np
import pytest
import torch

from tests.packs import inputs_of, random_pack, tiny_network

erf = np.vectorize(math.erf)


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def silu(x):
    return x / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


class ByHand:
    """The forward pass of a network's weights."""

    def __init__(self, network):
        self.weights = {name: p.detach().double().numpy() for name, p in network.state_dict().items()}
        self.config, self.groups = network.config, network.config.layout["groups"]

    def linear(self, x, name):
        y = self.weights[f"{name}.weight"] @ x
        return y + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else y

    def norm(self, x, name):
        return x / math.sqrt((x * x).mean() + 1e-6) * self.weights[f"{name}.weight"]

    def attend(self, q, keys, values):
        """One head's query over the keys that it may see."""
        return softmax(np.array(keys) @ q / math.sqrt(len(q))) @ np.array(values)

    def history(self, action, known, reward, name):
        row = int(action) if known and self.config.use_previous_action else 13  # of its own where not revealed
        reward = float(reward) if self.config.use_previous_reward else 0.0
        squeezed = math.copysign(math.log1p(abs(reward)), reward)
        return self.weights[f"{name}.action.weight"][row] + self.linear(np.array([squeezed]), f"{name}.reward")

    def blocks(self, words, numbers, *before):
        """One turn → its vector, and those of its entities, each from its own words and numbers."""
        at, entities = "model.turn_encoder", []
        for i, group in enumerate(self.groups):
            name = f"{at}.groups.{i}"
            for row, (mine, counts) in enumerate(zip(group["words"], group["numbers"], strict=True)):
                text = np.concatenate([self.weights[f"{at}.words.weight"][words[slot]] for slot in mine])
                x = self.linear(text, f"{name}.words_in") + self.weights[f"{name}.slot"][row]
                if counts:
                    x = x + self.linear(numbers[counts], f"{name}.numbers_in")
                entities.append(self.norm(self.linear(gelu(x), f"{name}.out"), f"{name}.norm"))
        history = self.history(*before, f"{at}.history")
        if self.config.matchup_width:
            name, field = f"{at}.matchup", np.concatenate([*entities[9:], history])  # after the moves and the bench
            for i, entity in enumerate(entities):
                both = self.linear(entity, f"{name}.from_entity") + self.linear(field, f"{name}.from_field")
                value, gate = np.split(both, 2)
                entities[i] = entity + self.linear(value * silu(gate), f"{name}.out")
        return self.linear(np.concatenate([*entities, history]), f"{at}.join"), entities

    def transformer(self, words, numbers, *before):
        """The same by a transformer over words, numeric tokens and scratch tokens."""
        at, config = "model.turn_encoder", self.config
        text = [self.weights[f"{at}.words.weight"][w] for w in words] + self.weights[f"{at}.word_position"]
        numeric = self.linear(numbers, f"{at}.numeric").reshape(config.encoder_numeric_tokens, -1)
        scratch = self.weights[f"{at}.scratch"].copy()
        scratch[0] += self.history(*before, f"{at}.history")
        tokens = [*text, *numeric, *scratch]
        for layer in range(config.encoder_layers):
            name, heads = f"{at}.layers.{layer}", config.encoder_heads
            qkv = [self.linear(self.norm(x, f"{name}.norm1"), f"{name}.qkv").reshape(3, heads, -1) for x in tokens]
            q, k, v = np.array(qkv).transpose(1, 2, 0, 3)
            for i in range(len(tokens)):
                seen = [self.attend(q[h, i], k[h], v[h]) for h in range(heads)]
                x = tokens[i] + self.linear(np.concatenate(seen), f"{name}.proj")
                inner = gelu(self.linear(self.norm(x, f"{name}.norm2"), f"{name}.up"))
                tokens[i] = x + self.linear(inner, f"{name}.down")
        tokens = [self.norm(x, f"{at}.norm") for x in tokens]
        first = [row[0] for group in self.groups for row in group["words"]]
        turn = self.linear(np.concatenate(tokens[-config.encoder_scratch_tokens :]), f"{at}.join")
        return turn, [self.linear(tokens[slot], f"{at}.entity") for slot in first]

    def turned(self, x, position):
        half = len(x) // 2
        out = np.empty_like(x)
        for i in range(half):
            angle = position * self.config.rotary_base ** (-i / half)
            out[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
            out[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
        return out

    def trunk(self, turns):
        """The turns of one window → hidden vectors; each sees itself and those before it."""
        heads = self.config.num_heads
        for layer in range(self.config.num_layers):
            name, keys, values, after = f"model.trunk.layers.{layer}", [], [], []
            for t, x in enumerate(turns):
                qkv = self.linear(self.norm(x, f"{name}.norm1"), f"{name}.attention.qkv").reshape(3, heads, -1)
                q, k = (
                    [self.turned(self.norm(part[h], f"{name}.attention.{kind}"), t) for h in range(heads)]
                    for part, kind in ((qkv[0], "q_norm"), (qkv[1], "k_norm"))
                )
                keys.append(k)
                values.append(qkv[2])
                seen = [self.attend(q[h], [k[h] for k in keys], [v[h] for v in values]) for h in range(heads)]
                x = x + self.linear(np.concatenate(seen), f"{name}.attention.proj")
                value, gate = np.split(self.linear(self.norm(x, f"{name}.norm2"), f"{name}.mlp.up"), 2)
                after.append(x + self.linear(value * silu(gate), f"{name}.mlp.down"))
            turns = after
        return [self.norm(x, "model.trunk.norm") for x in turns]

    def features(self, hidden, entities, action, name):
        rows = [ids for group in self.groups for ids in (group["actions"] or [[]] * len(group["words"]))]
        (row,) = (i for i, ids in enumerate(rows) if action in ids)
        both = self.linear(hidden, f"{name}.from_hidden") + self.linear(entities[row], f"{name}.from_entity")
        value, gate = np.split(both + self.weights[f"{name}.action"][action], 2)
        return value * silu(gate)

    def policy(self, hidden, entities, action):
        return self.linear(self.features(hidden, entities, action, "actor.features"), "actor.out")

    def values(self, hidden, entities, action):
        """Q [G, C] of one action."""
        config, found = self.config, []
        features = self.features(hidden, entities, action, "critics.features").reshape(config.critics, -1)
        for c, mine in enumerate(features):
            out = (mine @ self.weights["critics.weight"][c] + self.weights["critics.bias"][c]).reshape(4, -1)
            if config.value_head == "scalar":
                w, b, mean, second = (self.weights[f"popart.{name}"] for name in ("w", "b", "mean", "second"))
                found.append(np.sqrt(second - mean**2) * (w * out[:, 0] + b) + mean)
            else:
                bins = np.linspace(config.value_min, config.value_max, config.value_bins)
                found.append([softmax(one) @ bins for one in out])
        return np.array(found).T


@pytest.mark.parametrize(
    "options",
    [
        {}, {"value_head": "scalar"}, {"use_previous_action": False}, {"use_previous_reward": False},
        {"matchup_width": 0}, {"turn_encoder": "transformer", "encoder_layers": 2},
    ],
    ids=str,
)  # fmt: skip
def test_outputs_are_those_of_plain_loops(options):
    network, lengths = tiny_network(num_layers=2, **options).eval(), [3, 2]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():  # nothing is left at a start of zeros or ones
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
        if network.popart is not None:
            network.popart.update(torch.tensor([9.0, -90.0, 300.0, 0.0]), torch.tensor([9e2, 9e4, 3e5, 7e4]), 0.5)
    pack = random_pack(sum(lengths), lengths=lengths)
    pack["legal"][:] = True
    pack["prev_reward"] *= 30
    with torch.no_grad():
        out = network(**inputs_of(pack))
    hand, start = ByHand(network), 0
    encode = hand.transformer if options.get("turn_encoder") else hand.blocks
    names = ("words", "numbers", "prev_action", "prev_action_known", "prev_reward")
    turns = [encode(*(pack[name][n].numpy() for name in names)) for n in range(sum(lengths))]
    for length in lengths:
        window = turns[start : start + length]
        for n, hidden in enumerate(hand.trunk([turn for turn, _ in window]), start):
            assert out.hidden[n].numpy() == pytest.approx(hidden, rel=1e-3, abs=1e-4)
            for a in range(13):
                logits, q = hand.policy(hidden, turns[n][1], a), hand.values(hidden, turns[n][1], a)
                assert out.logits[n, :, a].numpy() == pytest.approx(logits, rel=1e-3, abs=1e-4)
                assert out.q_values[n, :, :, a].numpy() == pytest.approx(q, rel=1e-3, abs=0.1)
        start += length
    assert out.q_values.std() > 10
