"""A model, and the observation space and reward that it learned from: where one was edited since, nothing goes on
with it."""

import json
import shutil

import pytest

from battle.agents import TurnwiseAgent
from data import reward, walk
from data.tokenizer import Tokenizer
from model.modeling_turnwise import TurnwiseConfig
from tests.own_space import add_space, mean_hp
from tests.trainer.conftest import SMALL
from tests.trainer.test_finetune import FREE, config_of
from trainer.evaluate import main as evaluate_main
from trainer.finetune import starting_model
from trainer.setup import check_meaning, check_stamps
from trainer.train import main as train_main


def edit_a_formula(monkeypatch):
    """The last of an active Pokémon's numbers, its evasion, is another."""
    numbers = walk._active_numbers
    monkeypatch.setattr(walk, "_active_numbers", lambda pokemon: numbers(pokemon)[:-8] + bytes(8))


def add_a_slot(monkeypatch):
    add_space(monkeypatch, mean_hp, name="default")


def edit_the_reward(monkeypatch):
    """Of a battle won."""
    transition = reward.transition

    def edited(before, after):
        shaped, *others = transition(before, after)
        return shaped + after.won, *others

    monkeypatch.setattr(reward, "transition", edited)


def forget_the_digests(model):
    """As a model was saved before there were any."""
    config = json.loads((model / "config.json").read_text())
    assert config.pop("space_digest")
    assert config.pop("reward_digest")
    (model / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("edit", "stamped", "stamp", "edited"),
    [
        (edit_a_formula, True, "space_digest", "observation space 'default'"),
        (add_a_slot, True, "n_numbers", "observation space 'default'"),
        (add_a_slot, False, "n_numbers", "observation space 'default'"),  # its sizes are known all the same
        (edit_the_reward, True, "reward_digest", "reward 'shaped'"),
    ],
)
def test_a_model_of_the_space_or_reward_before_its_edit_is_refused(
    trained, battles, tmp_path, monkeypatch, capsys, edit, stamped, stamp, edited
):
    run = shutil.copytree(trained, tmp_path / "run")
    if not stamped:
        forget_the_digests(run / "model")
    edit(monkeypatch)
    data = f"data.path={battles}"
    for refused in (
        lambda: evaluate_main(["--checkpoint", str(run), "--data", str(battles)]),
        lambda: train_main([*FREE, data, f"output={tmp_path / 'fine'}", "max_steps=1", f"model.init_from={run}"]),
        lambda: train_main([*SMALL, data, f"output={run}", "max_steps=130"]),  # the same run goes on
    ):
        assert refused() == 1
        error = capsys.readouterr().err
        assert f"the model's {stamp} is " in error
        assert f"{edited} was edited since" in error
    with pytest.raises(ValueError, match=f"{stamp} is .* in the model's config and .* here"):
        TurnwiseAgent.from_pretrained(run / "model")


def test_a_model_older_than_the_digests_goes_on(trained, battles, tmp_path, monkeypatch, capsys):
    own = TurnwiseConfig.from_pretrained(trained / "model")
    assert own.space_digest
    model = shutil.copytree(trained / "model", tmp_path / "model")
    forget_the_digests(model)
    saved = TurnwiseConfig.from_pretrained(model)
    tokenizer = Tokenizer.load(model / "vocabulary.json")
    edit_a_formula(monkeypatch)
    edit_the_reward(monkeypatch)
    TurnwiseAgent.from_pretrained(model)
    assert evaluate_main(["--checkpoint", str(model), "--data", str(battles), "--battles", "2"]) == 0
    config = config_of(battles, tmp_path / "run", f"model.init_from={model}")
    # What is trained from here on has learned from the space and reward as they are now.
    now = starting_model(config).network().config
    assert now.space_digest not in ("", own.space_digest)
    assert now.reward_digest not in ("", own.reward_digest)
    check_stamps(saved, config.data, tokenizer, "step 1")
    check_meaning(saved, own, "step 1")
