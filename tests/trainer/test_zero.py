"""ZeRO 1 and 2 without waits: the norm and the clipping are DeepSpeed's own, which this file calls beside ours."""

import math
from types import SimpleNamespace

import pytest
import torch

from trainer import zero

pytest.importorskip("deepspeed", reason="needs DeepSpeed")
GROUP = object()  # the processes that share the gradients


@pytest.fixture
def pair(monkeypatch):
    """DeepSpeed's methods on a stand-in for its optimizer, and ours on another; there is one process."""
    from deepspeed.runtime.zero import stage_1_and_2
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    groups = []
    monkeypatch.setattr(stage_1_and_2.dist, "all_reduce", lambda *_, **__: None)
    monkeypatch.setattr(zero.dist, "all_reduce", lambda _, group: groups.append(group))

    def optimizer(clip=1.0, scale=1.0):
        return SimpleNamespace(
            device=torch.device("cpu"), dp_process_group=GROUP, model_parallel_rank=0, clip_grad=clip, loss_scale=scale,
            _model_parallel_all_reduce=lambda **_: None,
        )  # fmt: skip

    def both(**options):
        theirs, ours = optimizer(**options), optimizer(**options)
        for name in ("get_grad_norm_direct", "unscale_and_clip_grads"):
            setattr(theirs, name, getattr(DeepSpeedZeroOptimizer, name).__get__(theirs))
        zero.keep_on_device(ours)
        return theirs, ours

    both.groups = groups
    return both


def gradients(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    made = [torch.randn(shape, generator=generator).to(dtype) for shape in ((7, 5), (3,), (64, 33), ())]
    padding = torch.full((5,), 1e6, dtype=dtype)  # DeepSpeed marks what fills a partition up
    padding._zero_padding = True
    return [*made, padding]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_is_deepspeeds(pair, dtype):
    theirs, ours = pair()
    held = gradients(dtype)
    parameters = [torch.nn.Parameter(torch.zeros(())) for _ in held]
    expected = theirs.get_grad_norm_direct(held, parameters)
    found = ours.get_grad_norm_direct(held, parameters)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert float(found) == pytest.approx(math.sqrt(sum(float(g.double().square().sum()) for g in held[:-1])), rel=1e-6)
    assert pair.groups == [GROUP]
    assert float(ours.get_grad_norm_direct([], [])) == float(theirs.get_grad_norm_direct([], [])) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_not_finite_reaches_the_step_as_such(pair, bad):
    from deepspeed.runtime.utils import combine_grad_norm_groups

    _, ours = pair()
    held = gradients()
    held[2][5, 5] = bad
    norms = [ours.get_grad_norm_direct(held, held), torch.tensor(2.0)]
    assert combine_grad_norm_groups(norms) == math.inf  # what `TrainStep` asks


@pytest.mark.parametrize(
    ("clip", "scale", "norm"), [(1.0, 1.0, 0.3), (1.0, 1.0, 7.0), (0.5, 128.0, 900.0), (0.0, 1.0, 7.0), (0.0, 8.0, 7.0)]
)
def test_clipping_is_deepspeeds(pair, clip, scale, norm):
    theirs, ours = pair(clip=clip, scale=scale)
    flats = [torch.arange(6.0), torch.arange(6.0)]
    for optimizer, flat in zip((theirs, ours), flats, strict=True):
        optimizer.unscale_and_clip_grads([flat], torch.tensor(norm))
    assert torch.equal(*flats)
    assert torch.equal(flats[0], torch.arange(6.0)) == ((clip, scale, norm) in [(1.0, 1.0, 0.3), (0.0, 1.0, 7.0)])
