"""The average of the weights against a plain loop, through a checkpoint and a resumed run, and as what is evaluated."""

import pytest
import torch
from safetensors.torch import load_file

from tests.packs import tiny_network
from tests.trainer.conftest import SMALL
from trainer import checkpoint
from trainer.average import WeightAverage
from trainer.config import load_config
from trainer.loop import Run


def test_the_average_is_that_of_a_plain_loop():
    network = tiny_network(value_head="scalar")
    average = WeightAverage(network, 0.5)
    expected = {name: p.detach().double() for name, p in network.named_parameters()}
    decays = [0.1, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 9 / 18, 0.5, 0.5]
    for step, decay in enumerate(decays):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
            network.popart.mean.add_(1.0)
        average.update(network, step)
        for name, parameter in network.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach().double()
    for name, parameter in average.network.named_parameters():
        assert parameter.dtype == torch.float32
        torch.testing.assert_close(parameter.double(), expected[name], rtol=1e-5, atol=1e-5)
    assert torch.equal(average.network.popart.mean, network.popart.mean)


def test_a_decay_of_one_is_refused():
    with pytest.raises(ValueError, match=r"optim\.ema=1"):
        load_config(None, ["optim.ema=1.0"])


def test_a_run_averages_saves_resumes_and_evaluates_the_average(cached, tmp_path):
    settings = [
        *SMALL, f"data.path={cached}", f"output={tmp_path}", "max_steps=4", "batch.battles=2", "optim.ema=0.9",
        "optim.lr=1.0e-2", "optim.warmup_steps=0", "eval.battles=2", "checkpoint.background=false",
    ]  # fmt: skip

    def train(run, *steps):
        run.course.open(steps[0])
        for step in steps:
            run.step(step, run.course.micro(step))
        return {name: p.clone() for name, p in run.average.network.named_parameters()}

    whole = Run(load_config(None, settings))
    train(whole, 0, 1)
    nll = whole._evaluate(2)["heldout/nll"]
    assert nll == whole.judge(whole.average.network)["heldout/nll"]
    assert nll != whole.judge(whole.objective.network)["heldout/nll"]
    whole._save(2, owes_evaluation=False)
    folder = checkpoint.step_folder(tmp_path, 2)
    published, online = load_file(folder / "model" / "model.safetensors"), load_file(folder / "online.safetensors")
    for name, parameter in whole.objective.network.named_parameters():
        assert torch.equal(online[name], parameter)
    for name, parameter in whole.average.network.named_parameters():
        assert torch.equal(published[name], parameter)
    expected = train(whole, 2, 3)

    resumed = Run(load_config(None, settings))
    assert resumed._resume() == 2
    ours = train(resumed, 2, 3)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    for a, b in zip(resumed.objective.network.parameters(), whole.objective.network.parameters(), strict=True):
        assert torch.equal(a, b)
    # Without an average the trained weights go on; with one that the checkpoint lacks, it starts at them.
    without = Run(load_config(None, [*settings, "optim.ema=0"]))
    without._resume()
    weight = "model.trunk.norm.weight"
    assert torch.equal(without.objective.network.get_parameter(weight), online[weight])
    without._save(3, owes_evaluation=False)
    assert not (checkpoint.step_folder(tmp_path, 3) / "online.safetensors").exists()
    resumed._load(checkpoint.step_folder(tmp_path, 3))
    assert torch.equal(resumed.average.network.get_parameter(weight), online[weight])
