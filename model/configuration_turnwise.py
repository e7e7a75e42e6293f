"""The model's configuration: sizes, observation layout, and the stamps that a checkpoint is checked against.

`model/` knows nothing of battle files: which slot of an observation holds what reaches it as `layout`, and every size
as a number. The presets are the four sizes that the project documents; a test counts their parameters.
"""

import math
from typing import Any

from transformers import PretrainedConfig

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 128, "num_layers": 4, "num_heads": 2, "mlp_size": 384, "word_width": 16, "entity_width": 64,
        "entity_hidden": 128, "matchup_width": 128, "head_width": 32, "value_bins": 48,
        "encoder_width": 40, "encoder_layers": 2, "encoder_heads": 2,
    },
    "small": {
        "hidden_size": 384, "num_layers": 7, "num_heads": 6, "mlp_size": 1024, "word_width": 32, "entity_width": 128,
        "entity_hidden": 256, "matchup_width": 256, "head_width": 96,
        "encoder_width": 80, "encoder_layers": 3, "encoder_heads": 4,
    },
    "medium": {
        "hidden_size": 704, "num_layers": 7, "num_heads": 11, "mlp_size": 2048, "word_width": 48, "entity_width": 192,
        "entity_hidden": 384, "matchup_width": 384, "head_width": 160,
        "encoder_width": 120, "encoder_layers": 4, "encoder_heads": 6,
    },
    "base": {
        "hidden_size": 1280, "num_layers": 9, "num_heads": 20, "mlp_size": 3584, "word_width": 64, "entity_width": 256,
        "entity_hidden": 512, "matchup_width": 512, "head_width": 256,
        "encoder_width": 160, "encoder_layers": 5, "encoder_heads": 8,
    },
}  # fmt: skip


class TurnwiseConfig(PretrainedConfig):
    """Configuration of `TurnwiseModel` and `TurnwiseForOfflineRL`.

    Stamps (law 14), compared with the data's at load:
        observation_space, vocabulary_hash, action_space, reward_kind, schema_version, reward_scale; n_words and
        n_numbers below, space_digest and reward_digest (of the space's slots and formulas, and of the reward's; "" in
        older models); heldout_share and split_by say which battles the model has never seen, licence what those that
        it saw ask for.
    Observation:
        vocab_size: words of the tokenizer, reserved ids included. n_words (S), n_numbers (F), n_actions (A).
        layout: `{"groups": [{"name", "words": rows of word slots, "numbers": rows of number slots,
        "actions": per row the action ids that it stands for}]}`: one row per entity (a move, a Pokémon, the field).
    Trunk:
        hidden_size (D), num_layers, num_heads, mlp_size, max_turns (longest window), rotary_base, dropout, attention.
    Turn encoder:
        turn_encoder: of turn_encoder.ENCODERS: "blocks" (entity by entity, the default) or "transformer" (the Metamon
        paper's, arXiv 2504.04395).
        matchup_width: inner width of the blocks' layer that holds each entity against those on the field; 0: no such
        layer, as in models saved before there was one.
    Heads:
        gammas (G discounts, each with its own policy). At play the policy of act_gamma acts, drawn towards what its
        critics prefer by act_beta, per unit of return: π(a)·exp(act_beta·Q(a)).
        critics (C), value_head "two_hot" or "scalar", value_bins (K), value_min and value_max in units of the scaled
        reward, value_spacing "linear" or "symlog".
    """

    model_type = "turnwise"

    observation_space: str = "default"
    space_digest: str = ""
    reward_digest: str = ""
    vocabulary_hash: str = ""
    action_space: str = "standard13"
    reward_kind: str = "shaped"
    reward_scale: float = 10.0
    schema_version: int = 1
    heldout_share: float = 0.02
    split_by: str = "battle"
    licence: str | None = None

    vocab_size: int = 0
    n_words: int = 87
    n_numbers: int = 48
    n_actions: int = 13
    layout: dict | None = None

    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 2
    mlp_size: int = 384
    max_turns: int = 128
    rotary_base: float = 1000.0
    dropout: float = 0.0
    initializer_range: float = 0.02

    turn_encoder: str = "blocks"
    word_width: int = 16
    entity_width: int = 64
    entity_hidden: int = 128
    matchup_width: int = 0
    encoder_width: int = 40
    encoder_layers: int = 2
    encoder_heads: int = 2
    encoder_numeric_tokens: int = 6
    encoder_scratch_tokens: int = 11
    use_previous_action: bool = True
    use_previous_reward: bool = True

    gammas: list | tuple = (0.9, 0.99, 0.999, 0.9999)
    act_gamma: float = 0.999
    act_beta: float = 0.0
    critics: int = 4
    head_width: int = 32
    value_head: str = "two_hot"
    value_bins: int = 96
    value_min: float = -1100.0
    value_max: float = 1100.0
    value_spacing: str = "linear"

    def check(self) -> None:
        """Refuse sizes that cannot work together. Raises ValueError naming the key and the mend."""
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"config.num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}: "
                "choose num_heads = hidden_size / 64"
            )
        if self.hidden_size // self.num_heads % 2:
            raise ValueError(
                f"config.num_heads={self.num_heads} makes heads {self.hidden_size // self.num_heads} wide, and rotary "
                "positions turn pairs: choose num_heads = hidden_size / 64, or another even width"
            )
        if self.encoder_width % self.encoder_heads:
            raise ValueError(
                f"config.encoder_heads={self.encoder_heads} does not divide encoder_width={self.encoder_width}: "
                "choose one that does (the paper's heads are 20 wide)"
            )
        if self.value_head not in ("two_hot", "scalar"):
            raise ValueError(f"config.value_head={self.value_head!r}: choose 'two_hot' or 'scalar'")
        if self.value_spacing not in ("linear", "symlog"):
            raise ValueError(f"config.value_spacing={self.value_spacing!r}: choose 'linear' or 'symlog'")
        if self.value_min >= self.value_max:
            raise ValueError(f"config.value_min={self.value_min} is not below value_max={self.value_max}")
        if not self.layout or self.vocab_size < 2:
            raise ValueError(
                "config.layout and config.vocab_size must come from the data's observation space and tokenizer "
                "(data.observation.SPACES[name].layout, len(tokenizer))"
            )
        if self.act_gamma not in self.gammas:
            raise ValueError(f"config.act_gamma={self.act_gamma} is not one of config.gammas={list(self.gammas)}")
        if not 0 <= self.act_beta < math.inf:
            raise ValueError(f"config.act_beta={self.act_beta}: give a number of 0 or more")

    @property
    def n_gammas(self) -> int:
        return len(self.gammas)

    def gamma_index(self, gamma: float | None = None) -> int:
        """Index of a discount in `gammas`; `None` is the default one, `act_gamma`. Raises ValueError if unknown."""
        gamma = self.act_gamma if gamma is None else gamma
        if gamma not in self.gammas:
            raise ValueError(f"γ = {gamma} was not trained: choose one of {list(self.gammas)}")
        return list(self.gammas).index(gamma)


def preset(name: str) -> dict[str, Any]:
    """Sizes of a preset, to be given to `TurnwiseConfig`. Raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"model.preset={name!r} is unknown: choose one of {', '.join(PRESETS)}")
    return dict(PRESETS[name])


TurnwiseConfig.register_for_auto_class()
