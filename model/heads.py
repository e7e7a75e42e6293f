"""Actor and critics: a turn's hidden vector and its entities → a policy and Q values per action, for every discount.

An action is scored by the entity that it names: move 2 by the vector of the move in slot 2, a switch by the benched
Pokémon. Hidden vector and entity meet in a gated layer, then one linear layer gives the outputs of all discounts.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_turnwise import TurnwiseConfig
from .turn_encoder import Rows, swiglu


class ActionFeatures(nn.Module):
    """hidden [N,D], entities [N,E,e] → features [N,A,width], one row per action, gated like SwiGLU (Shazeer 2020).

    parts: the width's equal shares, each of a critic of its own.
    """

    def __init__(self, config: TurnwiseConfig, width: int, parts: int = 1):
        super().__init__()
        self.parts = parts
        named = _entity_of_action(config)
        rows = sorted(set(named.values()))
        self.entity_rows = stretches(rows)
        self.rows = stretches([rows.index(named[a]) for a in range(config.n_actions)])  # of an action, among those
        self.entity_of_action = Rows([named[a] for a in range(config.n_actions)])
        self.from_hidden = nn.Linear(config.hidden_size, 2 * width)
        self.from_entity = nn.Linear(config.entity_width, 2 * width, bias=False)
        self.action = nn.Parameter(torch.zeros(config.n_actions, 2 * width))

    def forward(
        self,
        hidden: torch.Tensor,
        entities: torch.Tensor,
        action: torch.Tensor | None = None,
        subset: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """With `action` int [N], features of that action alone: [N,1,width]; with `subset` int [p], of those parts."""
        actions = self._of(subset, self.action.T).T.to(entities.dtype)
        if action is None:
            named = self._linear(self.from_entity, taken(entities, self.entity_rows), subset)
            named = taken(named, self.rows) + actions
        else:
            row = self.entity_of_action.index[action]
            chosen = entities.gather(1, row.view(-1, 1, 1).expand(-1, 1, entities.shape[-1]))
            # A product with ones, which adds thousands of gradients of one action in fp32. Of an index the compiler
            # adds them one by one in bf16 where a GPU can (from Hopper on): a large sum then takes nothing in any more.
            one = (action.unsqueeze(1) == torch.arange(len(actions), device=action.device)).to(actions.dtype)
            named = (self._linear(self.from_entity, chosen, subset).squeeze(1) + one @ actions).unsqueeze(1)
        return swiglu(self._linear(self.from_hidden, hidden, subset).unsqueeze(1) + named)

    def _of(self, subset: torch.Tensor | None, outputs: torch.Tensor) -> torch.Tensor:
        """Rows [2·width, …] of values and gates → those of the parts asked for."""
        return outputs if subset is None else outputs.unflatten(0, (2, self.parts, -1))[:, subset].flatten(0, 2)

    def _linear(self, layer: nn.Linear, x: torch.Tensor, subset: torch.Tensor | None) -> torch.Tensor:
        """`layer` for the parts asked for. A whole layer is called: an engine's hooks on it bring its weights."""
        if subset is None:
            return layer(x)
        bias = None if layer.bias is None else self._of(subset, layer.bias)
        return F.linear(x, self._of(subset, layer.weight), bias)


class Actor(nn.Module):
    """One policy per discount: → unmasked logits [N, G, A]."""

    def __init__(self, config: TurnwiseConfig):
        super().__init__()
        self.features = ActionFeatures(config, config.head_width)
        self.out = nn.Linear(config.head_width, config.n_gammas)

    def forward(self, hidden: torch.Tensor, entities: torch.Tensor) -> torch.Tensor:
        return self.out(self.features(hidden, entities)).transpose(1, 2)


class Critics(nn.Module):
    """C critics per discount, each with hidden features of its own.

    Outputs are logits over K value bins ("two_hot") or one normalized value (K = 1, "scalar"): [C, N, actions, G, K],
    critics first as their matrix product leaves them: in any other order an uncompiled softmax copies them first.
    """

    def __init__(self, config: TurnwiseConfig):
        super().__init__()
        self.critics, self.gammas = config.critics, config.n_gammas
        self.bins = config.value_bins if config.value_head == "two_hot" else 1
        self.features = ActionFeatures(config, config.critics * config.head_width, config.critics)
        self.weight = nn.Parameter(torch.zeros(config.critics, config.head_width, self.gammas * self.bins))
        self.bias = nn.Parameter(torch.zeros(config.critics, self.gammas * self.bins))

    def forward(
        self,
        hidden: torch.Tensor,
        entities: torch.Tensor,
        action: torch.Tensor | None = None,
        subset: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """With `action` int [N], only that action of each turn: [C, N, 1, G, K]; otherwise all A of them.

        With `subset` int [c], only those critics: [c, N, actions, G, K].
        """
        weight, bias = self.weight, self.bias
        if subset is not None:
            weight, bias = weight[subset], bias[subset]
        features = self.features(hidden, entities, action, subset).unflatten(-1, (len(weight), -1)).permute(2, 0, 1, 3)
        out = torch.bmm(features.flatten(1, 2), weight.to(features.dtype))
        out.add_(bias.unsqueeze(1).to(out.dtype))
        return out.view(*features.shape[:3], self.gammas, self.bins)


class PopArt(nn.Module):
    """Scale and shift of returns per discount for scalar critics (van Hasselt et al. 2016), kept beside the weights.

    The network gives n; its normalized value is w·n + b and its value σ·(w·n + b) + μ. When the statistics move, w and
    b follow so that no value changes. All fp32 buffers of shape [G].
    """

    def __init__(self, n_gammas: int, scale: float):
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_gammas))
        self.register_buffer("second", torch.full((n_gammas,), scale**2))
        self.register_buffer("w", torch.ones(n_gammas))
        self.register_buffer("b", torch.zeros(n_gammas))

    def std(self) -> torch.Tensor:
        return (self.second - self.mean**2).clamp_min(1e-6).sqrt()

    def normalized(self, n: torch.Tensor) -> torch.Tensor:
        """n [..., G] → normalized values [..., G], fp32."""
        return n.float() * self.w + self.b

    def value(self, n: torch.Tensor) -> torch.Tensor:
        """n [..., G] → values [..., G] in units of the scaled reward, fp32."""
        return self.normalized(n) * self.std() + self.mean

    @torch.no_grad()
    def update(self, first: torch.Tensor, second: torch.Tensor, rate: float) -> None:
        """Move towards the batch's mean and mean square of targets [G]; values stay as they were."""
        old_mean, old_std = self.mean.clone(), self.std()
        self.mean.lerp_(first.float(), rate)
        self.second.lerp_(second.float(), rate)
        new_std = self.std()
        self.w.mul_(old_std / new_std)
        self.b.copy_((old_std * self.b + old_mean - self.mean) / new_std)


def value_support(config: TurnwiseConfig, device=None) -> torch.Tensor:
    """Values of the K bins, fp32 [K], evenly spaced in value ("linear") or in symlog of it ("symlog")."""
    low, high = config.value_min, config.value_max
    if config.value_spacing == "linear":
        return torch.linspace(low, high, config.value_bins, dtype=torch.float64, device=device).float()
    low, high = (math.copysign(math.log1p(abs(x)), x) for x in (low, high))
    even = torch.linspace(low, high, config.value_bins, dtype=torch.float64, device=device)
    return (even.sign() * even.abs().expm1()).float()


def stretches(rows: list[int]) -> list[tuple[int, int]]:
    """[0, 1, 2, 0, 1] → [(0, 3), (0, 2)]: the rows as slices, first and behind the last."""
    found: list[tuple[int, int]] = []
    for row in rows:
        if found and found[-1][1] == row:
            found[-1] = (found[-1][0], row + 1)
        else:
            found.append((row, row + 1))
    return found


def taken(x: torch.Tensor, cuts: list[tuple[int, int]]) -> torch.Tensor:
    """x [N,E,…] → its rows of those `stretches` [N,rows,…]. An index would do it, and its backward pass add up row by
    row in no order where this one adds two stretches."""
    parts = [x[:, first:behind] for first, behind in cuts]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _entity_of_action(config: TurnwiseConfig) -> dict[int, int]:
    """action id → row of the entity axis. Raises ValueError if the layout leaves an action without an entity."""
    named, row = {}, 0
    for group in config.layout["groups"]:
        actions = group["actions"] or [[]] * len(group["words"])
        for ids in actions:
            named.update(dict.fromkeys(ids, row))
            row += 1
    missing = set(range(config.n_actions)) - set(named)
    if missing:
        raise ValueError(f"config.layout names no entity for actions {sorted(missing)}: take the observation space's")
    return {a: named[a] for a in range(config.n_actions)}
