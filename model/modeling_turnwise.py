"""`TurnwiseModel`: turns → hidden vectors. `TurnwiseForOfflineRL`: with a policy and critics for every discount."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .attention import load_implementation, prepare
from .configuration_turnwise import PRESETS, TurnwiseConfig, preset
from .heads import Actor, Critics, PopArt, value_support
from .trunk import CacheView, Rotary, Trunk, TurnCache
from .turn_encoder import RMSNorm, Rows, TransformerTurnEncoder, ZeroLinear, build_turn_encoder

__all__ = ["PRESETS", "TurnCache", "TurnwiseConfig", "TurnwiseForOfflineRL", "TurnwiseModel", "preset"]


@dataclass
class TurnwiseOutput(ModelOutput):
    """logits fp32 [N,G,A], illegal actions at −inf's stand-in; q_values fp32 [N,G,C,A] or None;
    hidden [N,D]; entities [N,E,e]."""

    logits: torch.Tensor | None = None
    q_values: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    entities: torch.Tensor | None = None


class TurnwisePreTrainedModel(PreTrainedModel):
    config_class = TurnwiseConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = False  # a flag of the trunk, set by `gradient_checkpointing_on`
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # A deviation is the difference of two statistics that may be near each other: in bf16 nothing is left of it.
    _keep_in_fp32_modules_strict = ("popart",)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, ZeroLinear):
            nn.init.zeros_(module.weight)
        elif isinstance(module, nn.Linear):
            # Variance kept by fan-in, so that every width of preset starts at the same scale of activations.
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=1.0)
        elif isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, Critics):
            # Zero output weights: every critic starts at the middle of the support, whatever the state.
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, Rows | Rotary):
            module.fill()
        elif isinstance(module, PopArt):
            module.mean.zero_()
            module.second.fill_((self.config.value_max / 4) ** 2)
            module.w.fill_(1.0)
            module.b.zero_()
        for name in ("slot", "action", "scratch"):
            parameter = getattr(module, name, None)
            if isinstance(parameter, nn.Parameter):
                nn.init.normal_(parameter, std=std)
        if isinstance(module, TransformerTurnEncoder):
            # As loud as the words that they are added to, as the paper's sines and cosines are: by `std` the encoder
            # would hardly tell a bag of words from the same words in their places.
            nn.init.normal_(module.word_position, std=1.0)

    def count_parameters(self) -> dict[str, int]:
        """Parameters by part (direct children), and their sum under `total`."""
        parts = {name: sum(p.numel() for p in child.parameters()) for name, child in self.named_children()}
        return {**parts, "total": sum(parts.values())}


class TurnwiseModel(TurnwisePreTrainedModel):
    """Turn encoder and causal trunk: a pack of turns → hidden vectors."""

    def __init__(self, config: TurnwiseConfig):
        super().__init__(config)
        config.check()
        self.turn_encoder = build_turn_encoder(config)
        self.trunk = Trunk(config)
        self.attention = load_implementation(config._attn_implementation or "sdpa")
        self.post_init()
        # The residual branches' last matrices start small, so that depth does not grow the stream (GPT-2's rule).
        scale = (2 * config.num_layers) ** -0.5
        for layer in self.trunk.layers:
            for matrix in (layer.attention.proj.weight, layer.mlp.down.weight):
                if matrix.device.type != "meta":
                    matrix.data.mul_(scale)

    def forward(
        self,
        words,
        numbers,
        prev_action,
        prev_action_known,
        prev_reward,
        position,
        segment=None,
        cu_seqlens=None,
        cache: CacheView | None = None,
    ):
        """Packed: words int [N,S], numbers [N,F], the rest [N] with segment [N] and cu_seqlens [R+1].

        With a cache view: words [B·T,S] …, position [B,T]; new turns are appended. Returns (hidden [N or B·T, D],
        entities [N or B·T, E, e]).
        """
        turn, entities = self.turn_encoder(words, numbers, prev_action, prev_action_known, prev_reward)
        if cache is not None:
            hidden = self.trunk(turn.view(*position.shape, -1), position, cache=cache)
            return hidden.flatten(0, 1), entities
        layout = prepare(segment, cu_seqlens, self.config.max_turns, self.attention)
        return self.trunk(turn, position, layout), entities


class TurnwiseForOfflineRL(TurnwisePreTrainedModel):
    """The agent's network: for each discount γ one policy and C critics over the actions of every turn."""

    def __init__(self, config: TurnwiseConfig):
        super().__init__(config)
        self.model = TurnwiseModel(config)
        self.actor = Actor(config)
        self.critics = Critics(config)
        self.popart = PopArt(config.n_gammas, config.value_max / 4) if config.value_head == "scalar" else None
        self.post_init()

    @property
    def attention(self) -> str:
        return self.model.attention

    @attention.setter
    def attention(self, implementation: str) -> None:
        self.model.attention = load_implementation(implementation)

    def gradient_checkpointing_on(self) -> None:
        """Recompute activations of the trunk's layers (and of the transformer encoder's) in the backward pass: less
        memory, about a third more arithmetic."""
        self.model.trunk.gradient_checkpointing = True
        self.model.turn_encoder.gradient_checkpointing = True

    def features(
        self, batch: dict[str, torch.Tensor], model: TurnwiseModel | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden [N,D] and entities [N,E,e] of a pack (a dict with the keys of `data.collate`), by the network's own
        model or by `model`, a copy of it."""
        keys = ("words", "numbers", "prev_action", "prev_action_known", "prev_reward", "position", "segment")
        return (model or self.model)(*(batch[key] for key in keys), cu_seqlens=batch["cu_seqlens"])

    def policy_logits(self, hidden, entities, legal) -> torch.Tensor:
        """fp32 [N,G,A]; illegal actions at the dtype's minimum. A turn with nothing legal is left unmasked (finite)."""
        logits = self.actor(hidden, entities).float()
        mask = legal | ~legal.any(-1, keepdim=True)
        return logits.masked_fill(~mask.unsqueeze(1), torch.finfo(logits.dtype).min)

    def expected_values(self, critic_out: torch.Tensor) -> torch.Tensor:
        """Critics' outputs [C,N,actions,G,K] → Q values fp32 [N,G,C,actions], in units of the scaled reward."""
        if self.popart is not None:
            values = self.popart.value(critic_out.squeeze(-1))
        else:
            probs, support = critic_out.float().softmax(-1), value_support(self.config, critic_out.device)
            # Not as autocast would have it, in bf16: its three digits cannot tell actions apart whose values are near a
            # won battle's thousand. As mv, which a compiler turns into a product and a sum and joins to the softmax.
            with nullcontext() if probs.is_meta else torch.autocast(probs.device.type, enabled=False):
                values = torch.mv(probs.flatten(0, -2), support).view(probs.shape[:-1])
        return values.permute(1, 3, 0, 2)

    def forward(
        self,
        words,
        numbers,
        prev_action,
        prev_action_known,
        prev_reward,
        legal,
        position,
        segment=None,
        cu_seqlens=None,
        cache: CacheView | None = None,
        with_q: bool = True,
    ) -> TurnwiseOutput:
        """Policies and Q values of each turn; see `TurnwiseModel.forward` for the shapes. The batch is not changed."""
        hidden, entities = self.model(
            words, numbers, prev_action, prev_action_known, prev_reward, position, segment, cu_seqlens, cache
        )
        logits = self.policy_logits(hidden, entities, legal)
        q_values = self.expected_values(self.critics(hidden, entities)) if with_q else None
        return TurnwiseOutput(logits=logits, q_values=q_values, hidden=hidden, entities=entities)

    def new_cache(self, lanes: int) -> TurnCache:
        """An empty cache for `lanes` battles played side by side."""
        parameter = next(self.parameters())
        return TurnCache(self.config, lanes, parameter.device, parameter.dtype)

    @torch.no_grad()
    def step(self, turns: dict[str, torch.Tensor], cache: TurnCache, lanes: torch.Tensor, with_q: bool = True):
        """Append T new turns of B lanes and return their outputs.

        turns: words [B,T,S], numbers [B,T,F], prev_action, prev_action_known, prev_reward [B,T], legal [B,T,A];
        lanes int64 [B]. Returns a TurnwiseOutput whose first axis is B·T. Raises ValueError where the window is full.
        """
        count = turns["words"].shape[1]
        view = CacheView(cache, lanes, count)
        flat = {key: value.flatten(0, 1) for key, value in turns.items()}
        out = self(**flat, position=view.position, cache=view, with_q=with_q)
        cache.length[lanes] += count
        return out


TurnwiseModel.register_for_auto_class("AutoModel")
TurnwiseForOfflineRL.register_for_auto_class("AutoModel")
