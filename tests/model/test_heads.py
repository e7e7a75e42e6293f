"""What the heads take of the entities and of their own rows for actions, and what their gradients add up to."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.heads import ActionFeatures, stretches, taken
from tests.packs import tiny_network


@settings(deadline=None)
@given(rows=st.lists(st.integers(0, 8), min_size=1, max_size=13))
def test_rows_by_stretches_are_those_of_an_index(rows):
    cuts = stretches(rows)
    assert [row for first, behind in cuts for row in range(first, behind)] == rows
    assert len(cuts) == 1 + sum(b != a + 1 for a, b in pairwise(rows))
    x = torch.randn(3, 9, 2, requires_grad=True)
    weight = torch.randn(3, len(rows), 2)
    (gradient,) = torch.autograd.grad((taken(x, cuts) * weight).sum(), x)
    (expected,) = torch.autograd.grad((x[:, rows] * weight).sum(), x)
    torch.testing.assert_close(taken(x, cuts), x[:, rows], rtol=0, atol=0)
    torch.testing.assert_close(gradient, expected)


def test_thousands_of_gradients_of_one_action_add_up_in_bf16():
    """Added one by one in bf16 the sum stops growing where a term is less than half of its last bit: by atomics, as
    the compiler has it of an index on Hopper, a pack's 1,100 turns of move 1 lost a fifth to two fifths of theirs."""
    torch.manual_seed(0)
    config = tiny_network().config
    features = ActionFeatures(config, 16)
    hidden, entities = torch.randn(5000, config.hidden_size), torch.randn(5000, 12, config.entity_width)
    weight = torch.rand(5000, 1, 16)
    action = torch.zeros(5000, dtype=torch.int64)

    def gradient(enabled):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found = features(hidden, entities.to(torch.bfloat16) if enabled else entities, action)
        return torch.autograd.grad((found.float() * weight).sum(), features.action)[0]

    exact, found = gradient(False)[0], gradient(True)[0]
    assert (found - exact).norm() < 0.02 * exact.norm()
