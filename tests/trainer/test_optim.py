"""Learning rate and AdamW by hand: what each step's rate is, which parameters decay, how far each of them moves."""

import pytest
import torch

from tests.packs import tiny_network
from trainer.objective import ObjectiveConfig, OfflineRL
from trainer.optim import OptimConfig, build_optimizer, learning_rate

PLAIN = ("bias", "norm", "words.weight", "history.action.weight", "slot", "features.action", "scratch", "word_position")


def test_the_learning_rate_by_hand():
    config = OptimConfig(lr=2.0, warmup_steps=4, min_lr_ratio=0.1)
    rates = [learning_rate(step, 12, config) for step in (0, 1, 2, 3, 4, 6, 8, 10, 12, 30)]
    # Down the cosine at 0, 45, 90, 135 and 180 degrees from 2 to a tenth of it, where it stays.
    expected = [0.5, 1.0, 1.5, 2.0, 2.0, 1.1 + 0.9 * 0.5**0.5, 1.1, 1.1 - 0.9 * 0.5**0.5, 0.2, 0.2]
    assert rates == pytest.approx(expected)
    constant = OptimConfig(lr=2.0, warmup_steps=4, schedule="constant")
    assert [learning_rate(step, 12, constant) for step in (0, 3, 4, 11, 30)] == [0.5, 2.0, 2.0, 2.0, 2.0]
    assert learning_rate(0, 12, OptimConfig(lr=2.0, warmup_steps=0)) == 2.0
    assert learning_rate(4, 4, config) == 2.0  # a run that is warm-up alone has no cosine


@pytest.mark.parametrize("encoder", ["blocks", "transformer"])
def test_two_steps_of_adamw_against_a_plain_loop(encoder):
    """Matrices decay; norms, biases, embeddings and slots, the critics' stacked biases among them, do not."""
    objective = OfflineRL(tiny_network(turn_encoder=encoder), ObjectiveConfig())
    optimizer = build_optimizer(objective, OptimConfig(lr=0.1, betas=(0.8, 0.9), eps=0.2, weight_decay=0.5))
    named = dict(objective.network.named_parameters())
    expected = {name: p.detach().double() for name, p in named.items()}
    first, second = ({name: torch.zeros_like(p) for name, p in expected.items()} for _ in "ab")
    generator = torch.Generator().manual_seed(0)
    for step in (1, 2):
        for name, p in named.items():
            p.grad = torch.randn(p.shape, generator=generator)
            g = p.grad.double()
            first[name] = 0.8 * first[name] + 0.2 * g
            second[name] = 0.9 * second[name] + 0.1 * g**2
            decay = 0.0 if any(word in name for word in PLAIN) else 0.5
            move = first[name] / (1 - 0.8**step) / ((second[name] / (1 - 0.9**step)).sqrt() + 0.2)
            expected[name] = expected[name] * (1 - 0.1 * decay) - 0.1 * move
        optimizer.step()
    for name, p in named.items():
        torch.testing.assert_close(p.detach().double(), expected[name], rtol=1e-4, atol=1e-5, msg=name)
