"""One module whose `forward(batch)` returns the loss (law 7): network, target heads and the terms of `losses`.

A researcher who wants another objective changes this file: `OfflineRL.forward` is all that the trainer calls.
"""

import copy
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from data.reward import REWARDS
from model.heads import value_support
from model.modeling_turnwise import TurnwiseForOfflineRL
from trainer import losses
from trainer.limits import not_negative, positive, refuse_unless
from trainer.masters import fp32_master


@dataclass
class ObjectiveConfig:
    """What is optimized. Beside each coefficient, what the reference (Metamon on AMAGO) uses where it differs."""

    filter: str = "binary"  # imitation | winners | binary | exponential
    beta: float = 0.5  # of the exponential filter; its released configurations use 1.0
    clip: float = 50.0  # of the exponential weight; its released configurations use 100
    filter_warmup: int = (
        1000  # steps that clone every action, until the critics have something to say; the reference: 0
    )
    filter_floor: float = 0.0  # least weight of a recorded action, whatever the filter says
    policy_weight: float = 1.0
    critic_weight: float = 0.1  # at 1 the critics' noise keeps the trunk from learning; the reference: 10
    reward_scale: float = 10.0
    maxq_weight: float = 0.0  # of −V(s)/(return of a won battle), by which the policy also climbs its own critics
    n_step: int = 1  # rewards before a target leans on its own value
    discount_forced: bool = True  # false: no discount across a forced switch, which is no turn of its own
    unknown_words: float = 0.0  # share of words replaced by <unknown> while training (the paper's token masking)
    tau: float = 0.004  # Polyak rate of the targets
    target: str = "heads"  # heads (on the online trunk) | network: an fp32 copy of encoder and trunk too
    target_reduce: str = "min"  # over the random two critics: min | mean
    value_of: str = "policy"  # whose values critics learn and the filter compares with: policy | behaviour, one step
    popart_rate: float = 0.001  # of the running statistics, scalar critics only

    def check(self) -> None:
        """Raises ValueError naming the key."""
        filters = ("imitation", "winners", "binary", "exponential")
        rules = [
            ("filter", self.filter in filters, "imitation, winners, binary or exponential"),
            ("beta", positive(self.beta), "a number above 0"),
            ("clip", positive(self.clip), "a number above 0"),
            ("filter_warmup", self.filter_warmup >= 0, "0 or more steps"),
            ("filter_floor", 0 <= self.filter_floor <= 1, "a number from 0 to 1"),
            ("policy_weight", not_negative(self.policy_weight), "0 or more"),
            ("critic_weight", not_negative(self.critic_weight), "0 or more"),
            ("reward_scale", positive(self.reward_scale), "a number above 0"),
            ("maxq_weight", not_negative(self.maxq_weight), "0 or more"),
            ("n_step", self.n_step >= 1, "1 or more"),
            ("unknown_words", 0 <= self.unknown_words < 1, "a share from 0 to below 1"),
            ("tau", 0 < self.tau <= 1, "a rate above 0 and at most 1"),
            ("target", self.target in ("heads", "network"), "heads or network"),
            ("target_reduce", self.target_reduce in ("min", "mean"), "min or mean"),
            ("value_of", self.value_of in ("policy", "behaviour"), "policy or behaviour"),
            ("popart_rate", 0 < self.popart_rate <= 1, "a rate above 0 and at most 1"),
        ]
        refuse_unless("objective.", self, rules)


class Targets(nn.Module):
    """fp32 copies of actor and critics, and if `whole` of what lies below them, moved by Polyak averaging alone."""

    def __init__(self, network: TurnwiseForOfflineRL, whole: bool = False):
        super().__init__()
        self.actor = copy.deepcopy(network.actor).float()
        self.critics = copy.deepcopy(network.critics).float()
        self.model = copy.deepcopy(network.model).float() if whole else None
        self.requires_grad_(False)
        self.eval()  # for good: no wrapper's `train()` reaches it, and a target is taken without dropout

    def pairs(self, network: TurnwiseForOfflineRL) -> list[tuple[nn.Module, nn.Module]]:
        """(copy, original) of each part."""
        parts = [(self.actor, network.actor), (self.critics, network.critics)]
        return parts if self.model is None else [*parts, (self.model, network.model)]


class OfflineRL(nn.Module):
    """Actor-critic on recorded battles.

    forward(batch, denominators, critic_subset, filtering) → (loss, metrics): `denominators` are the global counts of
    the step (law 6), `filtering` is 0 while every action is cloned and 1 once the filter is on. The sum of the losses
    over micro-batches and processes is the loss of the step. Metrics are detached and already divided: summed over
    micro-batches and processes they are the step's values, per γ where [G].

    With `value_of=behaviour` the first γ's policy clones every action, whatever the filter: it is the model of whoever
    recorded, by which all γ's values are taken. Critics then learn of what was recorded alone and the other policies
    are one step better, while what they climb stays where it is (one-step RL: Brandfonbrener et al. 2021). Raises
    ValueError where no other policy is left to act, or MaxQ has no won battle's return to count in.
    """

    def __init__(self, network: TurnwiseForOfflineRL, config: ObjectiveConfig):
        super().__init__()
        config.check()
        self.network, self.config = network, config
        self.clones = int(config.value_of == "behaviour")  # policies, of the first γ, that no filter touches
        first = network.config.gammas[0]
        if self.clones and network.config.act_gamma == first:
            raise ValueError(
                f"objective.value_of='behaviour': the policy of the first γ, {first}, clones what was recorded and is "
                "not to act: choose another model.act_gamma, or give more of model.gammas"
            )
        self.won = REWARDS[network.config.reward_kind].win * network.config.reward_scale  # return of a won battle
        if config.maxq_weight > 0 and self.won <= 0:
            raise ValueError(
                f"objective.maxq_weight={config.maxq_weight!r}: it counts in won battles, and a win is worth nothing "
                f"in reward {network.config.reward_kind!r}: set it to 0, or choose another data.reward"
            )
        # Kept out of the module tree: a wrapper that casts or shards parameters must not reach the fp32 targets.
        self._hidden = (Targets(network, config.target == "network"),)
        self.register_buffer("gammas", torch.tensor(network.config.gammas, dtype=torch.float64), persistent=False)

    @property
    def targets(self) -> Targets:
        return self._hidden[0]

    def counts(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Turns that each term covers in one pack, fp64 [2]: policy (an action to clone), critic (one to evaluate)."""
        policy, critic = self.masks(batch)
        return torch.stack([policy.sum(), critic.sum()]).double()

    @staticmethod
    def masks(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """bool [N] each. An unrecorded action is no target for either; a turn with nothing legal has no policy loss,
        nor one of a battle that teaches the critics alone (`data.clone`)."""
        critic = batch["action_known"] & batch["decision"]
        return critic & batch["cloned"] & batch["legal"].any(-1), critic

    def forward(self, batch, denominators: torch.Tensor, critic_subset: torch.Tensor, filtering: torch.Tensor):
        config, network = self.config, self.network
        policy_mask, critic_mask = self.masks(batch)
        # A denominator of 0 (a step without one recorded action) gives a loss of 0, not 0/0.
        per_policy, per_critic = (1.0 / denominators.clamp_min(1.0)).float()

        if self.training and config.unknown_words > 0:
            batch = {**batch, "words": losses.masked_words(batch["words"], config.unknown_words)}
        hidden, entities = network.features(batch)
        logits = network.policy_logits(hidden, entities, batch["legal"])
        log_prob = losses.action_log_prob(logits, batch["action"])
        with torch.no_grad():
            frozen, frozen_entities = hidden.detach(), entities.detach()
            q = network.expected_values(network.critics(frozen, frozen_entities))
            probs = logits.softmax(-1)
            judge = self._judge(probs)
            advantage = losses.advantage(q, judge, batch["action"])
            kept = losses.filter_weight(config.filter, advantage, config.beta, config.clip)
            if config.filter == "winners":
                kept = kept * losses.winners_weight(batch["outcome"])
            improving = torch.arange(probs.shape[1], device=probs.device) >= self.clones
            weight = torch.where((filtering > 0) & improving, kept.clamp_min(config.filter_floor), 1.0)
            target, slow_value = self._td_target(frozen, frozen_entities, batch, critic_subset)
            # Of the same critics, taken together alike: the least of two stands below the mean of all by itself.
            drift = slow_value - losses.pooled_value(q[:, :, critic_subset], judge, config.target_reduce)
        policy_loss = losses.masked_sum(-weight * log_prob, policy_mask).mean() * per_policy

        loss = config.policy_weight * policy_loss
        if config.maxq_weight > 0:
            climbed = losses.state_value(logits.softmax(-1), q.mean(2)) * filtering * improving / self.won
            loss = loss - config.maxq_weight * losses.masked_sum(climbed, policy_mask).mean() * per_policy

        critic_out = network.critics(hidden, entities, batch["action"]).squeeze(2)
        critic_terms, clipped = self._critic_loss(critic_out, target)
        critic_loss = losses.masked_sum(critic_terms, critic_mask).mean() * per_critic
        loss = loss + config.critic_weight * critic_loss

        with torch.no_grad():
            greedy = logits.argmax(-1) == batch["action"].unsqueeze(-1)
            entropy = -(probs * probs.clamp_min(1e-12).log()).sum(-1)
            q_data = q.mean(2).gather(-1, batch["action"].view(-1, 1, 1).expand(-1, q.shape[1], 1)).squeeze(-1)

            def over_policy(values: torch.Tensor) -> torch.Tensor:
                return losses.masked_sum(values.float(), policy_mask) * per_policy

            metrics = {
                "loss/total": loss.detach(),
                "loss/policy": policy_loss.detach(),
                "loss/critic": critic_loss.detach(),
                "policy/nll": over_policy(-log_prob),
                "policy/accuracy": over_policy(greedy),
                "policy/entropy": over_policy(entropy),
                "filter/share_kept": over_policy(kept > 0),
                "filter/weight": over_policy(weight),
                "value/q_data": over_policy(q_data),
                "value/policy_minus_data": over_policy(-advantage),
                "value/target_drift": over_policy(drift),
                "value/target": losses.masked_sum(target, critic_mask) * per_critic,
                "value/target_square": losses.masked_sum(target.square(), critic_mask) * per_critic,
                "value/td_error": losses.masked_sum((q_data - target).abs(), critic_mask) * per_critic,
                "value/target_clipped": losses.masked_sum(clipped.float(), critic_mask) * per_critic,
            }
        return loss, metrics

    def _judge(self, probs: torch.Tensor) -> torch.Tensor:
        """[N,G,A] of all γ's policies → of those by which the states are valued."""
        return probs[:, :1].expand_as(probs) if self.clones else probs

    def _as_online(self, device: torch.device):
        """The targets' weights are fp32. Where DeepSpeed holds the online ones in bf16 there is no autocast around, and
        the targets would multiply in fp32: slower by far, and other targets than plain training's."""
        dtype = self.network.critics.weight.dtype
        return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)

    def _td_target(self, hidden, entities, batch, subset) -> tuple[torch.Tensor, torch.Tensor]:
        """(TD targets, the target heads' V'(s) by the critics of `subset`), fp32 [N,G] each.

        A target is of use where `decision` holds: a turn's successor is the next row of its window.
        """
        network = self.network
        legal = batch["legal"]
        mask = (legal | ~legal.any(-1, keepdim=True)).unsqueeze(1)
        with self._as_online(hidden.device):
            if self.targets.model is not None:
                hidden, entities = network.features(batch, self.targets.model)
            dtype = self.targets.critics.weight.dtype
            hidden, entities = hidden.to(dtype), entities.to(dtype)
            logits = self.targets.actor(hidden, entities).float()
            probs = logits.masked_fill(~mask, torch.finfo(torch.float32).min).softmax(-1)
            q = network.expected_values(self.targets.critics(hidden, entities, subset=subset))
        value = losses.pooled_value(q, self._judge(probs), self.config.target_reduce)
        reward = batch["reward"].float() * self.config.reward_scale
        gammas = self.gammas.float()
        if not self.config.discount_forced:
            gammas = losses.unforced_discounts(gammas, batch["forced"])
        follows = (batch["decision"] & batch["action_known"]).roll(-1, 0)
        target = losses.n_step_target(reward, batch["done"], value.roll(-1, 0), gammas, follows, self.config.n_step)
        return target, value

    def _critic_loss(self, critic_out: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """critic_out [C,N,G,K], target [N,G] → mean loss of the critics [N,G], and where clipped [N,G]."""
        popart = self.network.popart
        if popart is not None:
            normalized_target = (target - popart.mean) / popart.std()
            terms = losses.scalar_loss(popart.normalized(critic_out.squeeze(-1)), normalized_target)
            return terms.mean(0), torch.zeros_like(target, dtype=torch.bool)
        support = value_support(self.network.config, target.device)
        terms = losses.two_hot_loss(critic_out, target, support)
        return terms.mean(0), (target < support[0]) | (target > support[-1])


def compile_forward(objective: OfflineRL, **options) -> None:
    """torch.compile for shapes that never change. Of `forward` alone: an engine's hooks around the module, as DeepSpeed
    has them, would break the graph. `torch.compiler.set_stance("force_eager")` goes past it."""
    objective.forward = torch.compile(objective.forward, dynamic=False, **options)


def derived_support(reward_kind: str, reward_scale: float) -> tuple[float, float]:
    """(low, high) of the value support: the largest return of the reward's kind, both ways, times its scale.

    Raises ValueError for an unknown kind. The reference writes ±1100 into its configurations by hand.
    """
    if reward_kind not in REWARDS:
        raise ValueError(f"data.reward={reward_kind!r}: choose one of {', '.join(REWARDS)}")
    largest = REWARDS[reward_kind].max_abs_return * reward_scale
    return -largest, largest


@torch.no_grad()
def polyak_update(objective: OfflineRL, tau: float) -> None:
    """target ← (1−τ)·target + τ·online, in fp32, after an optimizer step."""
    for target, online in objective.targets.pairs(objective.network):
        slow, fast = list(target.parameters()), [fp32_master(p) for p in online.parameters()]
        torch._foreach_lerp_(slow, fast, tau)
