"""Fine-tuning: a run that starts from a saved model has its weights, sizes and words, and refuses what cannot be."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data.tokenizer import Tokenizer
from model.modeling_turnwise import TurnwiseConfig
from tests.data.hub_server import StandInHub
from tests.trainer.conftest import SIZES, SMALL, run_of
from trainer import counting, export, upload
from trainer.card import RunFacts, model_card
from trainer.config import load_config
from trainer.errors import CheckpointError
from trainer.finetune import joined, starting_model
from trainer.loop import Run
from trainer.scores import as_text
from trainer.train import main as train_main

ROOT = Path(__file__).parents[2]
# Nothing of the model's sizes: they come from the model (its preset is `tiny`, the default `base`).
FREE = [setting for setting in SMALL if setting not in SIZES]
WORDS = "model.turn_encoder.words.weight"


def config_of(battles, output, *settings):
    return load_config(None, [*FREE, f"data.path={battles}", f"output={output}", "max_steps=5", *settings])


def test_a_run_starts_from_the_saved_weights_in_their_sizes(trained, cached, tmp_path, caplog):
    caplog.set_level("INFO")
    chosen = ("model.dropout=0.2", "model.act_gamma=0.99", "model.act_beta=0.3", "data.max_turns=32")
    split = ("data.heldout_share=0.125", "data.split_by=players")
    start = starting_model(config_of(cached, tmp_path, f"model.init_from={trained}", *chosen, *split))
    assert "its β is 0 and this run's agent's 0.3, of model.act_beta" in caplog.text
    network = start.network()
    saved = load_file(trained / "model" / "model.safetensors")
    assert all(torch.equal(network.state_dict()[name], value) for name, value in saved.items())
    assert (start.config.model.hidden_size, start.config.model.value_bins) == (64, 32)
    assert (network.config.dropout, network.config.vocabulary_hash) == (0.2, Tokenizer.load().hash)
    # What the run chose, not what the model was trained with, is noted for those who come after.
    config = network.config
    assert (config.act_gamma, config.act_beta, config.max_turns) == (0.99, 0.3, 32)
    assert (config.heldout_share, config.split_by) == (0.125, "players")


def test_fine_tuning_goes_on_from_what_was_learned_and_resumes(trained, cached, tmp_path):
    def first_nll(output):
        with open(output / "training_log.csv", newline="") as handle:
            return float(next(csv.DictReader(handle))["policy/nll@0.999"])

    settings = ["log.every=1", "eval.every=0", "objective.filter_warmup=0", "optim.lr=1.0e-4"]
    config = config_of(cached, tmp_path / "run", f"model.init_from={trained}", *settings)
    assert Run(config).train() == 0
    assert first_nll(tmp_path / "run") < 0.8 * first_nll(trained)
    assert json.loads((tmp_path / "run" / "run_config.json").read_text())["model"]["hidden_size"] == 64
    more = config_of(cached, tmp_path / "run", f"model.init_from={trained}", *settings, "max_steps=6")
    assert Run(more).train() == 0
    assert (tmp_path / "run" / "step_00000006" / "manifest.json").exists()


def licence_of_a_run(data, output, *settings):
    run = Run(config_of(data, output, "max_steps=1", *settings))
    run.lock.close()
    return run.objective.network.config.licence


def test_the_licence_of_the_battles_goes_wherever_the_model_goes(battles, trained, tmp_path):
    """Noted beside the battles → the model, packed or exported, and what is fine-tuned from it, resumed or not."""
    data = shutil.copytree(battles, tmp_path / "battles")
    note = [{"repo": "some/data", "revision": "v4", "licence": "cc-by-nc-4.0"}]
    (data / "downloads.json").write_text(json.dumps(note))
    assert licence_of_a_run(battles, tmp_path / "mine") is None
    assert licence_of_a_run(data, tmp_path / "theirs") == "cc-by-nc-4.0"
    model = shutil.copytree(trained / "model", tmp_path / "step" / "model")
    sizes = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(sizes | {"licence": "cc-by-nc-4.0"}))
    upload.pack(model, tmp_path / "packed", None)
    export.take_out(model, tmp_path / "exported", {})
    for folder in (model, tmp_path / "packed", tmp_path / "exported"):
        assert model_card(folder, "me/agent", None, RunFacts()).data.license == "cc-by-nc-4.0"
        assert licence_of_a_run(battles, tmp_path / "tuned", f"model.init_from={folder}") == "cc-by-nc-4.0"
    config = config_of(battles, tmp_path / "tuned", "model.init_from=gone")
    assert starting_model(config, resumed=model.parent).licence() == "cc-by-nc-4.0"


def test_a_card_tells_the_licence_of_a_model_that_does_not(cached, trained, tmp_path):
    folder = shutil.copytree(trained / "model", tmp_path / "model")
    start = f"model.init_from={folder}"
    for card, told in (("---\nlicense: cc-by-nc-sa-4.0\n---\n", "cc-by-nc-4.0"), ("no metadata", None)):
        (folder / "README.md").write_text(card)
        assert licence_of_a_run(cached, tmp_path / "run", start) == told
    (folder / "README.md").write_text("---\nlicense: [mit\n---\n")
    with pytest.raises(CheckpointError, match=r"README\.md: its metadata cannot be read \(.*flow sequence.*\)"):
        licence_of_a_run(cached, tmp_path / "run", start)


@pytest.mark.parametrize(
    ("share", "by", "said"),
    [(1.0, "battle", False), (0.5, "battle", False), (2.0, "battle", True), (1.0, "players", True)],
)
def test_held_out_battles_that_the_model_may_have_seen_are_told(share, by, said, trained, cached, tmp_path, caplog):
    saved = TurnwiseConfig.from_pretrained(trained / "model")
    assert saved.split_by == "battle"
    settings = [f"data.heldout_share={share * saved.heldout_share}", f"data.split_by={by}"]
    start = starting_model(config_of(cached, tmp_path, *settings, f"model.init_from={trained}"))
    assert ("seen some of them" in caplog.text) == said
    # By one rule the smaller share is what neither has seen, and `trainer.evaluate` judges by.
    assert start.network().config.heldout_share == min(share, 1.0) * saved.heldout_share


def test_a_run_that_goes_on_with_more_held_out_is_judged_on_what_it_never_saw(cached, tmp_path):
    """By `trainer.evaluate`; the run's own table is of more battles, and says so."""
    for steps, share, rule in (
        (1, 0.15, "0.15 by battle"),
        (2, 0.3, "0.3 by battle, of which the model that it went on from may have seen all but 0.15"),
    ):
        run = run_of(cached, tmp_path, f"max_steps={steps}", f"data.heldout_share={share}")
        assert run.train() == 0
        evaluation = json.loads((tmp_path / "evaluation.json").read_text())
        assert evaluation["judged"]["heldout"] == rule
        counts = [evaluation["judged"][key] for key in ("battles", "of")]
        assert f"judged: {counts[0]} of {counts[1]} battles, held out by rule: {rule}" in as_text(evaluation)
        assert counts == [len(run.heldout), len(run.heldout) + len(run.dataset)]
    assert TurnwiseConfig.from_pretrained(tmp_path / "model").heldout_share == 0.15


def test_new_words_join_behind_the_models_with_fresh_rows(trained, battles, tmp_path, caplog):
    own = Tokenizer.load(trained / "model" / "vocabulary.json")
    Tokenizer([*reversed(own.words[2:]), "<gen10ou>", "sproutling"]).save(tmp_path / "more.json")
    output = tmp_path / "run"
    settings = [f"data.vocabulary={tmp_path / 'more.json'}", f"model.init_from={trained}"]
    assert Run(config_of(battles, output, *settings)).train() == 0
    words = Tokenizer.load(output / "model" / "vocabulary.json").words
    assert words == [*own.words, "<gen10ou>", "sproutling"]
    saved = TurnwiseConfig.from_pretrained(output / "model")
    assert (saved.vocab_size, saved.vocabulary_hash) == (len(words), Tokenizer(words[2:]).hash)
    before = load_file(trained / "model" / "model.safetensors")[WORDS]
    with caplog.at_level("INFO"):
        start = starting_model(config_of(battles, tmp_path / "again", *settings))
    assert f"2 new words join its {len(own)}" in caplog.text
    rows = start.network().state_dict()[WORDS]
    assert torch.equal(rows[:-2], before)
    assert 0.2 < rows[-2:].std() < 2


def test_joining_keeps_ids_and_adds_nothing_twice():
    a, b = Tokenizer(["x", "y"]), Tokenizer(["y", "z", "x", "w"])
    assert joined(a, b).words[2:] == ["x", "y", "z", "w"]
    assert joined(a, a).hash == a.hash


@pytest.mark.slow
def test_a_model_of_the_hub_is_fetched_by_its_name(trained, cached, tmp_path):
    files = {path.name: path.read_bytes() for path in (trained / "model").iterdir() if path.is_file()}
    hub = StandInHub({"me/agent": files})
    settings = [*FREE, f"data.path={cached}", f"output={tmp_path / 'run'}", "max_steps=1", "optim.lr=0"]
    # The Hub's address is read at import: another one needs another process, which trains twice.
    twice = (
        "import sys; from trainer.train import main; settings = sys.argv[1:];"
        "codes = [main([*settings, f'model.init_from=me/{name}']) for name in ('agent', 'nobody')];"
        "print(codes, file=sys.stderr)"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", twice, *settings], cwd=ROOT, capture_output=True, text=True, timeout=120,
            env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")},
        )  # fmt: skip
    finally:
        hub.close()
    assert done.stderr.splitlines()[-1] == "[0, 1]", done.stderr[-2000:]
    ours, theirs = (load_file(x / "model" / "model.safetensors") for x in (tmp_path / "run", trained))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert "me/nobody" in done.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data.space=expanded"], ["observation_space", "'default'", "data.space", "slot"]),
        (["data.reward=binary"], ["reward_kind", "data.reward=shaped"]),
        (["objective.reward_scale=5.0"], ["reward_scale", "10.0"]),
        (["model.hidden_size=256"], ["hidden_size", "64", "256"]),
        (["model.critics=2"], ["critics"]),
        (["model.act_gamma=0.5"], ["model.act_gamma=0.5 is none of the model's [0.9, 0.99, "]),
        (["model.init_from=DIR"], ["error: model.init_from: ", "no model here"]),
        (["model.init_from=DIR/nothing here"], ["nothing here", "NAME/MODEL"]),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(trained, cached, tmp_path, capsys, settings, words):
    (tmp_path / "empty").mkdir()
    settings = [setting.replace("DIR", str(tmp_path / "empty")) for setting in settings]
    base = [*FREE, f"data.path={cached}", f"output={tmp_path / 'run'}", "max_steps=1", f"model.init_from={trained}"]
    assert train_main([*base, *settings]) == 1
    error = capsys.readouterr().err
    assert all(word in error for word in words), error


def test_a_plan_takes_the_sizes_of_the_model_to_start_from(trained, cached, tmp_path):
    counted = counting.count(config_of(cached, tmp_path / "never", f"model.init_from={trained}"))
    saved = load_file(trained / "model" / "model.safetensors")
    assert counted.parameters == sum(value.numel() for value in saved.values())
    assert not (tmp_path / "never").exists()
