"""Random packs of the collator's shapes, for tests of the network and the losses that need no battle file."""

import torch

from data.observation import SPACES

VOCABULARY = 300


def random_lengths(turns: int, longest: int, generator: torch.Generator) -> list[int]:
    lengths = []
    while sum(lengths) < turns:
        length = int(torch.randint(2, longest + 1, (1,), generator=generator))
        lengths.append(min(length, turns - sum(lengths)))
    return lengths


def random_pack(turns=256, longest=100, seed=0, lengths=None, segments=None, space="default") -> dict:
    """A pack of `turns` rows; `lengths` of its windows may be given."""
    g = torch.Generator().manual_seed(seed)
    lengths = lengths or random_lengths(turns, longest, g)
    segments = segments or turns // 2 + 2
    position = torch.cat([torch.arange(n) for n in lengths])
    segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    cu_seqlens = torch.full((segments + 1,), turns, dtype=torch.int32)
    cu_seqlens[: len(lengths) + 1] = torch.tensor([0, *lengths]).cumsum(0)
    last = torch.cat([segment[1:] != segment[:-1], torch.tensor([True])])
    legal = torch.rand(turns, 13, generator=g) > 0.4
    legal[torch.rand(turns, generator=g) < 0.03] = False
    action = torch.randint(0, 13, (turns,), generator=g)
    known = (torch.rand(turns, generator=g) > 0.15) & ~last & legal.any(-1)
    # A recorded action is a legal one.
    action = torch.where(known, torch.where(legal, torch.rand(turns, 13, generator=g), -1.0).argmax(-1), 0)
    terminal = torch.rand(len(lengths), generator=g) > 0.3
    done = torch.cat([last[1:], torch.tensor([False])]) & ~last & terminal[segment]
    return {
        "words": torch.randint(2, VOCABULARY, (turns, SPACES[space].n_words), generator=g).int(),
        "numbers": torch.randn(turns, SPACES[space].n_numbers, generator=g),
        "prev_action": torch.randint(0, 13, (turns,), generator=g),
        "prev_action_known": torch.rand(turns, generator=g) > 0.2,
        "prev_reward": torch.randn(turns, generator=g),
        "legal": legal,
        "forced": torch.zeros(turns, dtype=torch.bool),
        "action": action,
        "action_known": known,
        "decision": ~last,
        "reward": torch.where(last, 0.0, torch.randn(turns, generator=g)),
        "cloned": torch.rand(turns, generator=g) > 0.2,
        "done": done,
        "outcome": torch.where(terminal[segment], segment % 2, -1).to(torch.int8),
        "valid": torch.ones(turns, dtype=torch.bool),
        "position": position.int(),
        "segment": segment.int(),
        "cu_seqlens": cu_seqlens,
        "windows": torch.full((segments, 3), -1, dtype=torch.int64),
    }


def tiny_network(seed=0, space="default", **changes):
    """A `tiny` network for such packs, every weight drawn at random (the critics' and the matchup's too)."""
    from model.modeling_turnwise import TurnwiseConfig, TurnwiseForOfflineRL, preset

    observation = SPACES[space]
    sizes = {
        **preset("tiny"), "vocab_size": VOCABULARY, "layout": observation.layout, "n_words": observation.n_words,
        "n_numbers": observation.n_numbers, "observation_space": space, "value_bins": 32, **changes,
    }  # fmt: skip
    torch.manual_seed(seed)
    network = TurnwiseForOfflineRL(TurnwiseConfig(**sizes))
    with torch.no_grad():
        network.critics.weight.normal_(std=0.2)
        network.critics.bias.normal_(std=0.2)
        if getattr(network.model.turn_encoder, "matchup", None) is not None:
            network.model.turn_encoder.matchup.out.weight.normal_(std=0.1)
    return network


NETWORK_INPUTS = (
    "words", "numbers", "prev_action", "prev_action_known", "prev_reward", "legal", "position", "segment", "cu_seqlens",
)  # fmt: skip


def inputs_of(pack: dict) -> dict:
    return {key: pack[key] for key in NETWORK_INPUTS}


NEGLIGIBLE = 1e-5


def outputs(network, pack):
    with torch.no_grad():
        out = network.eval()(**inputs_of(pack))
    return out.logits, out.q_values


def assert_close(a, b, tolerance=NEGLIGIBLE):
    for x, y in zip(a, b, strict=True):
        scale = max(1.0, y[y > torch.finfo(torch.float32).min / 2].abs().max().item())
        assert (x - y).abs().max().item() <= tolerance * scale
