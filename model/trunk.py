"""The causal transformer over a battle's turns: packed for training, cached for play. Same weights, same numbers."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .attention import PackedLayout, dense_attention, packed_attention
from .configuration_turnwise import TurnwiseConfig
from .turn_encoder import RMSNorm, swiglu


class Rotary(nn.Module):
    """cos and sin of the rotary embedding (Su et al. 2021): position int [...] → fp32 [..., head_width/2] each.

    Looked up in tables of a window's positions: a compiler takes the computation of sines into every kernel that uses
    them, and there they cost more than the loads. No part of a saved model; `fill` writes them.
    """

    def __init__(self, config: TurnwiseConfig):
        super().__init__()
        self.half, self.base = config.hidden_size // config.num_heads // 2, config.rotary_base
        for name in ("cos", "sin"):
            table = torch.zeros(config.max_turns, self.half, dtype=torch.float32)
            self.register_buffer(name, table, persistent=False)
        self.fill()

    @torch.no_grad()
    def fill(self) -> None:
        frequency = self.base ** (-torch.arange(self.half, dtype=torch.float64, device="cpu") / self.half)
        angle = torch.arange(self.cos.shape[0], dtype=torch.float64, device="cpu").unsqueeze(-1) * frequency
        self.cos.copy_(angle.cos())
        self.sin.copy_(angle.sin())

    def forward(self, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cos[position], self.sin[position]


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn the pairs (x_i, x_{i+d/2}) of each head. x [..., H, d]; cos, sin [..., d/2]. fp32 inside, x's dtype out."""
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


class TurnCache:
    """Keys and values of the turns that each lane has played, for one state at a time.

    keys, values: [layers, lanes, H, max_turns, d]; length: int64 [lanes], turns held. A lane is reset at a battle's
    start by `length[lane] = 0`.
    """

    def __init__(self, config: TurnwiseConfig, lanes: int, device: torch.device, dtype: torch.dtype):
        width = config.hidden_size // config.num_heads
        shape = (config.num_layers, lanes, config.num_heads, config.max_turns, width)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = torch.zeros(lanes, dtype=torch.int64, device=device)
        self.max_turns = config.max_turns


class CacheView:
    """The part of a `TurnCache` that one call writes: `turns` new turns of the given lanes."""

    def __init__(self, cache: TurnCache, lanes: torch.Tensor, turns: int):
        self.cache, self.lanes = cache, lanes
        start = cache.length[lanes]
        if int(start.max()) + turns > cache.max_turns:
            raise ValueError(
                f"a lane holds {int(start.max())} turns and {turns} more exceed the window of {cache.max_turns}: "
                "slide the window first (reset the lane and feed its newest turns)"
            )
        self.position = start[:, None] + torch.arange(turns, device=start.device)
        self.end = int(start.max()) + turns
        keys = torch.arange(self.end, device=start.device)
        self.mask = (keys[None, None, None, :] <= self.position[:, None, :, None]).contiguous()

    def append(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write k, v [B, T, H, d] and return all keys and values so far, [B, H, L, d]."""
        rows = self.lanes[:, None]
        cache = self.cache
        cache.keys[layer].transpose(1, 2)[rows, self.position] = k.to(cache.keys.dtype)
        cache.values[layer].transpose(1, 2)[rows, self.position] = v.to(cache.values.dtype)
        return cache.keys[layer][self.lanes, :, : self.end], cache.values[layer][self.lanes, :, : self.end]


class Attention(nn.Module):
    def __init__(self, config: TurnwiseConfig, index: int):
        super().__init__()
        self.index, self.heads = index, config.num_heads
        width = config.hidden_size // config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        # Norms of queries and keys keep the attention logits bounded in bf16 (Dehghani et al. 2023).
        self.q_norm, self.k_norm = RMSNorm(width), RMSNorm(width)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x, rotary, layout: PackedLayout | None, cache: CacheView | None):
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.unbind(-3)
        q, k = rotate(self.q_norm(q), *rotary), rotate(self.k_norm(k), *rotary)
        if cache is None:
            out = packed_attention(q, k, v, layout)
        else:
            keys, values = cache.append(self.index, k, v)
            out = dense_attention(q.transpose(1, 2), keys, values, cache.mask).transpose(1, 2)
        return self.proj(out.flatten(-2))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020), its inner width about 8/3 of D for the parameter count of a 4× MLP: [.., D] → [.., D]."""

    def __init__(self, config: TurnwiseConfig):
        super().__init__()
        inner = config.mlp_size
        self.up = nn.Linear(config.hidden_size, 2 * inner, bias=False)
        self.down = nn.Linear(inner, config.hidden_size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(swiglu(self.up(x)))


class Layer(nn.Module):
    def __init__(self, config: TurnwiseConfig, index: int):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(config.hidden_size), RMSNorm(config.hidden_size)
        self.attention, self.mlp = Attention(config, index), FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, rotary, layout=None, cache=None):
        x = x + self.dropout(self.attention(self.norm1(x), rotary, layout, cache))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Trunk(nn.Module):
    """Pre-norm layers with rotary positions relative to the window. [N, D] packed, or [B, T, D] against a cache."""

    def __init__(self, config: TurnwiseConfig):
        super().__init__()
        self.rotary = Rotary(config)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size)
        self.gradient_checkpointing = False

    def forward(self, x, position, layout: PackedLayout | None = None, cache: CacheView | None = None):
        rotary = self.rotary(position)
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                x = checkpoint(layer, x, rotary, layout, use_reentrant=False)
            else:
                x = layer(x, rotary, layout, cache)
        return self.norm(x)
