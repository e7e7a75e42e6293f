"""The terms of offline reinforcement learning as pure functions of tensors; each is tested against plain NumPy loops.

Shapes: N turns, G discounts, C critics, A actions, K value bins. Everything that decides a sign or moves slowly
(advantages, targets, projections) is fp32 (law 13).
"""

import math

import torch

from data.tokenizer import PAD_ID, UNKNOWN_ID


def action_log_prob(logits: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """log π(a|s) of the recorded action: logits [N,G,A] (illegal ones masked), action int [N] → fp32 [N,G]."""
    log_probs = logits.float().log_softmax(-1)
    return log_probs.gather(-1, action.view(-1, 1, 1).expand(-1, logits.shape[1], 1)).squeeze(-1)


def state_value(probs: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """V(s) = Σ_a π(a|s)·Q(s,a): probs [N,G,A], q [N,G,A] → fp32 [N,G]. An impossible action adds nothing."""
    return (probs.float() * q.float()).sum(-1)


def advantage(q: torch.Tensor, probs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """A = mean_c Q(s,a) − Σ_a π(a|s)·mean_c Q(s,a) (Metamon, arXiv 2504.04395, eq. 3; CRR, Wang et al. 2020).

    q [N,G,C,A], probs [N,G,A], action int [N] → fp32 [N,G], without gradient.
    """
    mean_q = q.detach().float().mean(2)
    taken = mean_q.gather(-1, action.view(-1, 1, 1).expand(-1, mean_q.shape[1], 1)).squeeze(-1)
    return taken - state_value(probs.detach(), mean_q)


def filter_weight(kind: str, advantage: torch.Tensor, beta: float, clip: float) -> torch.Tensor:
    """Weight of the cloned action: `imitation` 1; `binary` [A > 0]; `exponential` min(exp(β·A), clip). Shape kept.

    `winners` is imitation of battles that were won (`winners_weight`): what it needs is not in the advantage.
    """
    if kind in ("imitation", "winners"):
        return torch.ones_like(advantage)
    if kind == "binary":
        return (advantage > 0).to(advantage.dtype)
    if kind == "exponential":
        # The exponent is clipped before exp, so that a large advantage never becomes inf.
        return (beta * advantage).clamp_max(math.log(clip)).exp()
    raise ValueError(f"objective.filter={kind!r} cannot be: choose imitation, winners, binary or exponential")


def winners_weight(outcome: torch.Tensor) -> torch.Tensor:
    """1 for turns of a battle that was won, else 0: outcome int8 [N] (1 won, 0 lost, −1 no result) → fp32 [N,1]."""
    return (outcome == 1).float().unsqueeze(-1)


def td_target(reward: torch.Tensor, done: torch.Tensor, next_value: torch.Tensor, gammas: torch.Tensor) -> torch.Tensor:
    """r + γ(1−done)·V'(s'): reward fp32 [N] (scaled), done bool [N], next_value [N,G], gammas [G] → fp32 [N,G]."""
    alive = (~done).to(torch.float32).unsqueeze(-1)
    # where, not a product: the value after a battle's end is not a number that anything has learned.
    return reward.float().unsqueeze(-1) + gammas * torch.where(alive > 0, next_value.float(), 0.0)


def n_step_target(
    reward: torch.Tensor,
    done: torch.Tensor,
    next_value: torch.Tensor,
    gammas: torch.Tensor,
    goes_on: torch.Tensor,
    n: int,
) -> torch.Tensor:
    """r_t + γ r_{t+1} + … + γⁿ V'(s_{t+n}) over rows of a pack, shorter where the battle ends or stops being followed.

    reward fp32 [N], done bool [N], next_value fp32 [N,G], gammas [G] or [N,G] as in `td_target`; goes_on bool [N]: the
    row after is a transition of the same window with a recorded action. Where it is not, the sum ends there with V'.
    Returns fp32 [N,G]; n = 1 is `td_target`. (Sutton and Barto 2018, 7.1; no correction for the policy that acted.)
    """
    target = td_target(reward, done, next_value, gammas)
    for _ in range(n - 1):
        after = torch.where(goes_on.unsqueeze(-1), target.roll(-1, 0), next_value.float())
        target = td_target(reward, done, after, gammas)
    return target


def unforced_discounts(gammas: torch.Tensor, forced: torch.Tensor) -> torch.Tensor:
    """γ per transition: 1 where the state is a forced switch, which costs no turn. gammas [G], forced [N] → [N,G]."""
    return torch.where(forced.unsqueeze(-1), torch.ones_like(gammas), gammas)


def pooled_value(q: torch.Tensor, probs: torch.Tensor, reduce: str) -> torch.Tensor:
    """V'(s) from a random subset of the critics (REDQ, Chen et al. 2021): Σ_a π'(a|s)·min_c Q'_c(s,a).

    q [N,G,c,A] of the subset alone, probs [N,G,A], reduce "min" or "mean" → fp32 [N,G].
    """
    pooled = q.float().amin(2) if reduce == "min" else q.float().mean(2)
    return state_value(probs, pooled)


def two_hot_loss(logits: torch.Tensor, target: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of a categorical value with its target spread over the two nearest bins (Imani & White 2018).

    logits [...,K]; target fp32, broadcastable to [...], in units of the support; support ascending fp32 [K].
    Returns fp32 [...]. Targets outside the support count as its ends. The two-hot vector is never built.
    """
    target = target.clamp(support[0], support[-1])
    upper = torch.searchsorted(support, target.contiguous(), right=True).clamp(1, support.shape[0] - 1)
    low, high = support[upper - 1], support[upper]
    high_weight = ((target - low) / (high - low)).expand(logits.shape[:-1])
    upper = upper.expand(logits.shape[:-1]).unsqueeze(-1)
    log_probs = logits.float().log_softmax(-1)
    log_low, log_high = log_probs.gather(-1, upper - 1).squeeze(-1), log_probs.gather(-1, upper).squeeze(-1)
    return -((1 - high_weight) * log_low + high_weight * log_high)


def scalar_loss(normalized: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared error in PopArt's normalized units (van Hasselt et al. 2016): same shapes → fp32, same shape."""
    return (normalized.float() - target.float()).square()


def masked_words(words: torch.Tensor, share: float) -> torch.Tensor:
    """words int [N,S] with a random share replaced by <unknown>, padding left alone (Metamon, arXiv 2504.04395:
    token masking). Draws from torch's generator, which a step seeds."""
    drawn = torch.rand(words.shape, device=words.device) < share
    return torch.where(drawn & (words != PAD_ID), UNKNOWN_ID, words)


def masked_sum(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Σ over the first axis where mask [N] holds. values [N,...] → [...].

    A masked NaN stays out of the sum; out of the gradient only if it has none itself.
    """
    mask = mask.view(-1, *[1] * (values.dim() - 1))
    return torch.where(mask, values, 0.0).sum(0)
