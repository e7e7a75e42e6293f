"""Words and numbers of one turn → one vector of the turn, and one vector per entity on the field.

Entities (own moves, benched Pokémon, both active ones, the field) come from the configuration's layout. The heads score
an action by the entity that it names, so a move is known by what it is and not by the slot it happens to stand in.
"""

from itertools import chain

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from .attention import dense_attention
from .configuration_turnwise import TurnwiseConfig


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang & Sennrich 2019), computed in fp32, returned in the input's dtype."""

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


def symlog(x: torch.Tensor) -> torch.Tensor:
    """sign(x)·log(1+|x|): keeps small shaping rewards and a win's hundred in one range (Hafner et al. 2023)."""
    return x.sign() * x.abs().log1p()


def swiglu(x: torch.Tensor) -> torch.Tensor:
    """[…, 2·width] → […, width]: the first half, gated by SiLU of the second (Shazeer 2020)."""
    value, gate = x.chunk(2, dim=-1)
    return value * F.silu(gate)


class History(nn.Module):
    """Embedding of the previous action and reward: [N] each → [N, width]. An unrevealed action has its own row."""

    def __init__(self, config: TurnwiseConfig, width: int):
        super().__init__()
        self.use_action, self.use_reward = config.use_previous_action, config.use_previous_reward
        self.unrevealed = config.n_actions
        self.action = nn.Embedding(config.n_actions + 1, width)
        self.reward = nn.Linear(1, width)

    def forward(self, prev_action, prev_action_known, prev_reward):
        if not self.use_action:
            prev_action_known = torch.zeros_like(prev_action_known)
        if not self.use_reward:
            prev_reward = torch.zeros_like(prev_reward)
        row = torch.where(prev_action_known, prev_action, self.unrevealed)
        return self.action(row) + self.reward(symlog(prev_reward).unsqueeze(-1).to(self.reward.weight.dtype))


class Rows(nn.Module):
    """Indices into an axis as a buffer: on the device from the start, where a Python list would be copied there anew at
    each forward. No part of a saved model; `fill` writes them, also where a loader made the buffer without content."""

    def __init__(self, rows: list[int]):
        super().__init__()
        self.rows = rows
        self.register_buffer("index", torch.tensor(rows, dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def fill(self) -> None:
        self.index.copy_(torch.tensor(self.rows, dtype=torch.int64, device="cpu"))


class EntityGroup(nn.Module):
    """One kind of entity (say, the five benched Pokémon), all rows by the same weights.

    words [N, rows · words of a row, e], numbers [N, rows · numbers of a row] → [N, rows, width].
    """

    def __init__(self, group: dict, config: TurnwiseConfig):
        super().__init__()
        self.rows, n_words, n_numbers = len(group["words"]), len(group["words"][0]), len(group["numbers"][0])
        self.words_in = nn.Linear(n_words * config.word_width, config.entity_hidden)
        self.numbers_in = nn.Linear(n_numbers, config.entity_hidden, bias=False) if n_numbers else None
        self.slot = nn.Parameter(torch.zeros(self.rows, config.entity_hidden))
        self.out = nn.Linear(config.entity_hidden, config.entity_width)
        self.norm = RMSNorm(config.entity_width)

    def forward(self, words: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        x = F.linear(words.reshape(words.shape[0], self.rows, -1), self.words_in.weight)
        if self.numbers_in is not None:
            x = x + self.numbers_in(numbers.reshape(numbers.shape[0], self.rows, -1))
        # Joined before they meet the turns: the backward pass adds up the turns' gradients once for both.
        shift = self.slot + self.words_in.bias
        return self.norm(self.out(F.gelu(x + shift.to(x.dtype))))


class ZeroLinear(nn.Linear):
    """The end of a residual branch that begins by adding nothing: its weights start at zero."""


class Matchup(nn.Module):
    """Every entity against those on the field: what a move does depends on whom it meets.

    entities [N,E,e], field [N, rows·e] → entities [N,E,e], by one gated layer whose weights all entities share;
    where each move has its own, through the turn's vector alone, each has to learn the same anew. It
    starts as the identity.
    """

    def __init__(self, config: TurnwiseConfig, rows: int):
        super().__init__()
        self.from_entity = nn.Linear(config.entity_width, 2 * config.matchup_width, bias=False)
        self.from_field = nn.Linear(rows * config.entity_width, 2 * config.matchup_width)
        self.out = ZeroLinear(config.matchup_width, config.entity_width, bias=False)

    def forward(self, entities: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
        return entities + self.out(swiglu(self.from_entity(entities) + self.from_field(field).unsqueeze(1)))


class BlocksTurnEncoder(nn.Module):
    """The default encoder: every entity by a small MLP over its words and numbers, then held against those on the
    field; one projection of all of them is the turn.

    A thirteenth of the arithmetic of the paper's encoder, in a handful of large matrix products.
    """

    def __init__(self, config: TurnwiseConfig):
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.word_width)
        groups = config.layout["groups"]
        self.groups = nn.ModuleList(EntityGroup(group, config) for group in groups)
        words = [[slot for row in group["words"] for slot in row] for group in groups]
        numbers = [[slot for row in group["numbers"] for slot in row] for group in groups]
        self.word_order, self.number_order = (Rows(list(chain.from_iterable(slots))) for slots in (words, numbers))
        self.word_counts, self.number_counts = [len(slots) for slots in words], [len(slots) for slots in numbers]
        self.history = History(config, config.entity_width)
        parts = sum(group.rows for group in self.groups) + 1
        # Those that no action names: both active Pokémon and the field; the history is one more.
        self.on_field = [not group["actions"] for group in groups]
        rows = sum(group.rows for group, here in zip(self.groups, self.on_field, strict=True) if here) + 1
        self.matchup = Matchup(config, rows) if config.matchup_width else None
        self.join = nn.Linear(parts * config.entity_width, config.hidden_size)

    def forward(self, words, numbers, prev_action, prev_action_known, prev_reward):
        """words int [N,S], numbers float [N,F], the rest [N] → turn [N,D], entities [N,E,entity_width]."""
        # It is the ids that are put into the groups' order: of their vectors, the backward pass would add up a zeroed
        # [N,S,e] for each group.
        embedded = self.words(words[:, self.word_order.index])
        numbers = numbers[:, self.number_order.index].to(embedded.dtype)
        parts = zip(self.groups, embedded.split(self.word_counts, 1), numbers.split(self.number_counts, 1), strict=True)
        found = [group(*part) for group, *part in parts]
        entities = torch.cat(found, dim=1)
        history = self.history(prev_action, prev_action_known, prev_reward).to(entities.dtype)
        if self.matchup is not None:
            field = [rows.flatten(1) for rows, here in zip(found, self.on_field, strict=True) if here]
            entities = self.matchup(entities, torch.cat([*field, history], dim=1))
        turn = self.join(torch.cat([entities.flatten(1), history], dim=1))
        return turn, entities


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer over the tokens of one turn: [N, tokens, width] → same."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x = x + self.proj(dense_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class TransformerTurnEncoder(nn.Module):
    """The Metamon paper's encoder (arXiv 2504.04395, appendix): a transformer over words, numeric and scratch tokens.

    The scratch tokens' outputs, side by side, are the turn's vector. An entity's is the output at its first word.
    """

    def __init__(self, config: TurnwiseConfig):
        super().__init__()
        width, self.n_words = config.encoder_width, config.n_words
        self.words = nn.Embedding(config.vocab_size, width)
        self.word_position = nn.Parameter(torch.zeros(config.n_words, width))
        self.numeric_tokens, self.scratch_tokens = config.encoder_numeric_tokens, config.encoder_scratch_tokens
        self.numeric = nn.Linear(config.n_numbers, self.numeric_tokens * width)
        self.history = History(config, width)
        self.scratch = nn.Parameter(torch.zeros(self.scratch_tokens, width))
        self.layers = nn.ModuleList(EncoderLayer(width, config.encoder_heads) for _ in range(config.encoder_layers))
        self.norm = RMSNorm(width)
        self.join = nn.Linear(self.scratch_tokens * width, config.hidden_size)
        self.first_words = Rows([row[0] for group in config.layout["groups"] for row in group["words"]])
        self.entity = nn.Linear(width, config.entity_width)
        self.gradient_checkpointing = False

    def forward(self, words, numbers, prev_action, prev_action_known, prev_reward):
        """words int [N,S], numbers float [N,F], the rest [N] → turn [N,D], entities [N,E,entity_width]."""
        n = words.shape[0]
        text = self.words(words) + self.word_position
        numeric = self.numeric(numbers.to(text.dtype)).view(n, self.numeric_tokens, -1)
        # The history rides on the first scratch token, so that 87 + 6 + 11 tokens stay what the paper counts.
        history = self.history(prev_action, prev_action_known, prev_reward).to(text.dtype)
        scratch = self.scratch.to(text.dtype).expand(n, -1, -1)
        scratch = torch.cat([scratch[:, :1] + history.unsqueeze(1), scratch[:, 1:]], dim=1)
        x = torch.cat([text, numeric.to(text.dtype), scratch], dim=1)
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                x = checkpoint(layer, x, use_reentrant=False)
            else:
                x = layer(x)
        x = self.norm(x)
        turn = self.join(x[:, -self.scratch_tokens :].flatten(1))
        return turn, self.entity(x[:, self.first_words.index])


ENCODERS = {"blocks": BlocksTurnEncoder, "transformer": TransformerTurnEncoder}


def build_turn_encoder(config: TurnwiseConfig) -> nn.Module:
    """The encoder that `config.turn_encoder` names. Raises ValueError where there is none of that name."""
    if config.turn_encoder not in ENCODERS:
        raise ValueError(f"config.turn_encoder={config.turn_encoder!r}: choose one of {', '.join(ENCODERS)}")
    return ENCODERS[config.turn_encoder](config)
