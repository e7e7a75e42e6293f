from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.packs import tiny_network
from trainer import advice
from trainer.advice import idle_settings, warn_of_idle_gpus, warn_of_short_reach, warn_of_unsaved
from trainer.config import from_tree, load_config, to_tree
from trainer.objective import ObjectiveConfig, OfflineRL
from trainer.wording import flat

RUNS = sorted((Path(__file__).parents[2] / "launch" / "runs").rglob("*.yaml"))


@pytest.mark.parametrize(
    ("steps", "settings", "said"),
    [
        (2_499, {}, "by about 10.0 turns, and battles are 20 long"),  # 1/tau = 250 steps a turn
        (2_500, {}, None),
        (62, {"n_step": 8, "tau": 0.02}, "by about 9.9 turns"),
        (63, {"n_step": 8, "tau": 0.02}, None),
        (200, {"filter": "imitation"}, None),  # no critic decides
        (200, {"filter": "winners"}, None),
        (200, {"filter": "imitation", "maxq_weight": 1.0}, "by about 0.8 turns"),
        (200, {"filter": "exponential"}, "by about 0.8 turns"),
        (200, {"init_from": "a/model"}, None),  # its critics know
    ],
)
def test_a_run_too_short_for_its_critics_is_said(caplog, steps, settings, said):
    of_model = {key: value for key, value in settings.items() if key == "init_from"}
    tree = {"model": of_model, "objective": {key: settings[key] for key in settings if key not in of_model}}
    warn_of_short_reach(from_tree(tree, "test"), steps, SimpleNamespace(mean_window=lambda: 20.0))
    words = [record.getMessage() for record in caplog.records]
    assert len(words) == (said is not None)
    assert said is None or said in words[0]


@pytest.mark.parametrize(
    ("world", "battles", "zero", "settings", "said"),
    [
        (
            8,
            16,
            None,
            {},
            "each of 8 GPUs has 16 battles in a pack, some 2.9 ms of its work, and the host takes",
        ),
        (8, 64, None, {}, None),  # 11 ms
        (8, 64, 1, {}, "some 11.5 ms of its work, and the host takes some 15 ms"),
        (8, 64, 3, {}, "the host takes some 21 ms"),
        (8, 64, None, {"parallel": "fsdp2"}, "the host takes some 21 ms"),
        (1, 16, None, {}, None),  # asked for so
        (8, 16, None, {"batch_scaling": "multiply"}, None),
        (8, 16, None, {"peak": None}, None),  # a CPU, or a GPU that is not known
    ],
)
def test_gpus_that_share_out_too_little_are_said(caplog, world, battles, zero, settings, said):
    settings = {"parallel": "ddp", "batch_scaling": "keep", "peak": 989e12} | settings
    plugin = None if zero is None else SimpleNamespace(zero_stage=zero)
    run = SimpleNamespace(
        config=SimpleNamespace(batch=SimpleNamespace(battles=battles), **settings), asked={"batch": {"battles": 128}},
        accelerator=SimpleNamespace(num_processes=world, state=SimpleNamespace(deepspeed_plugin=plugin)),
        rows=SimpleNamespace(peak=settings["peak"]), flops={"train": 1.3e9},
    )  # fmt: skip
    warn_of_idle_gpus(run, battles * 41)
    words = [record.getMessage() for record in caplog.records]
    assert len(words) == (said is not None)
    assert said is None or (said in words[0] and "by which each has 128" in words[0])


def test_what_of_an_objective_no_checkpoint_holds_is_told_of(caplog):
    """Or a temperature of one's own, learned for a week, would begin anew where the run goes on."""
    objective = OfflineRL(tiny_network(), ObjectiveConfig())
    warn_of_unsaved(objective)
    assert not caplog.records
    objective.log_alpha = torch.nn.Parameter(torch.zeros(()))
    objective.register_buffer("spread", torch.ones(()))
    warn_of_unsaved(objective)
    assert "no checkpoint holds log_alpha, spread, outside its network" in caplog.text


def test_settings_that_nothing_reads_are_told_of():
    """Or a sweep over β under the default filter looks as if β made no difference."""
    told = idle_settings(load_config(None, ["objective.beta=2", "model.value_bins=48", "model.encoder_layers=3"]))
    assert told == [
        ("objective.beta", 2.0, "objective.filter", "binary"),
        ("model.encoder_layers", 3, "model.turn_encoder", "blocks"),
    ]
    told = idle_settings(load_config(None, ["optim.schedule=constant", "optim.min_lr_ratio=0.5"]))
    assert told == [("optim.min_lr_ratio", 0.5, "optim.schedule", "constant")]
    assert not idle_settings(load_config(None, ["objective.beta=2", "objective.filter=exponential"]))
    assert not idle_settings(load_config(None, ["model.encoder_layers=3", "model.init_from=a/transformers"]))
    for path in RUNS:
        assert not idle_settings(load_config(path)), path
    known = flat(to_tree(load_config(None)))
    assert all(known.keys() >= {choice, *names} for choice, _, names in advice._IDLE)
