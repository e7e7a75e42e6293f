"""torch.compile takes the whole objective in one graph, once, whatever the battles' lengths (CPU, inductor)."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch._dynamo.utils import counters

from tests.packs import random_pack, tiny_network
from trainer.objective import ObjectiveConfig, OfflineRL, polyak_update

PACKS = 50
SIZES = {"num_layers": 1, "max_turns": 64, "value_bins": 16, "critics": 2}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def pack_of(seed):
    return random_pack(turns=128, longest=64, seed=seed)


def step_inputs(objective, seed):
    """What `TrainStep` gives the module for one pack: batch, denominators, the critics drawn, the filter's switch."""
    pack = pack_of(seed)
    subset = torch.randperm(SIZES["critics"], generator=torch.Generator().manual_seed(seed))
    return pack, objective.counts(pack), subset, torch.full((), float(seed >= PACKS // 2))


def loss_and_gradients(module, objective, inputs):
    objective.zero_grad(set_to_none=True)
    loss, metrics = module(*inputs)
    loss.backward()
    return loss.detach(), metrics, {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}


def move_on(objective):
    """An update by hand, in place as an optimizer does it, so that later packs meet other weights and targets."""
    with torch.no_grad():
        for parameter in objective.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=1e-3)
    polyak_update(objective, objective.config.tau)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_one_graph_no_recompilation_and_the_eager_loss(backend):
    """`fullgraph` raises at a graph break, `error_on_recompile` at a second compilation: over 50 ragged packs, filter
    off and on, weights moving. Losses and gradients are held against eager ones on the way. Graphs and guards are the
    same with both backends; the inductor (a minute where its cache is cold) adds the kernels."""
    objective = OfflineRL(tiny_network(**SIZES), ObjectiveConfig()).train()
    objective.compile(dynamic=False, fullgraph=True, backend=backend)
    assert len({int(pack_of(seed)["segment"].max()) for seed in range(PACKS)}) > 3, "the packs are not ragged"
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in range(PACKS):
            inputs = step_inputs(objective, seed)
            loss, _, gradients = loss_and_gradients(objective, objective, inputs)
            if seed % 10 == 0:
                # `forward` called by its name goes past the compiled call.
                eager, _, expected = loss_and_gradients(objective.forward, objective, inputs)
                torch.testing.assert_close(loss, eager, rtol=1e-4, atol=1e-4)
                assert gradients.keys() == expected.keys()
                for name, gradient in expected.items():
                    torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-4, msg=name)
            move_on(objective)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.fixture
def own_accelerate_state():
    """accelerate keeps one state a process, and refuses another precision: neither other tests' nor ours may stay."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("own_accelerate_state")
def test_no_graph_break_in_bf16_as_accelerate_prepares_it():
    """The GPU's default: accelerate wraps `forward` in autocast after `Run` has asked for compilation, and that must
    not break the graph."""
    objective = OfflineRL(tiny_network(**SIZES), ObjectiveConfig()).train()
    objective.compile(dynamic=False, backend="aot_eager")
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    module = accelerator.prepare(objective)
    for seed in range(4):
        loss, _, gradients = loss_and_gradients(module, objective, step_inputs(objective, seed))
        assert loss.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        move_on(objective)
    assert not counters["graph_break"], dict(counters["graph_break"])
    assert counters["stats"]["unique_graphs"] == 1
