"""Configuration: order of sources, and every kind of mistake refused with its place and the nearest name."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from trainer import loop
from trainer.config import load_config, scale_to_world, to_tree
from trainer.errors import ConfigError
from trainer.train import main as train_main

RUNS = sorted((Path(__file__).parents[2] / "launch" / "runs").rglob("*.yaml"))


def test_defaults_then_file_then_command_line(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("optim: {lr: 1e-4, warmup_steps: 7}\nmodel: {preset: tiny}\n")
    config = load_config(path, ["optim.lr=2e-4", "data.formats=[gen1ou, gen2ou]", "max_steps=5"])
    assert (config.optim.lr, config.optim.warmup_steps, config.optim.grad_clip) == (2e-4, 7, 1.0)
    assert (config.model.preset, config.data.formats, config.max_steps) == ("tiny", ["gen1ou", "gen2ou"], 5)


def test_an_empty_section_is_the_defaults(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("hub:\n  # to: me/agent\nmodel: {preset: tiny}\n")
    assert load_config(path) == load_config(None, ["model.preset=tiny"])
    assert load_config(path, ["hub.push=true"]).hub.push


def test_a_section_that_stands_twice_is_refused_not_lost(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("optim: {lr: 1.0e-3}\nmax_steps: 12\noptim: {warmup_steps: 5}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: not valid YAML: 'optim' stands twice\n.*line 3, column 1"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"command line: .* is not YAML: 'lr' stands twice"):
        load_config(None, ["optim={lr: 1, lr: 2}"])
    path.write_text("a: &common {lr: 1.0e-3, warmup_steps: 5}\noptim: {<<: *common, lr: 2.0e-3}\n")
    with pytest.raises(ConfigError, match="unknown key 'a'"):  # what is merged in may be laid over
        load_config(path)


@pytest.mark.parametrize("folder", ["data/sample #1", "2024", "[mine]", 'a "b" c: d', "où est-il"])
def test_a_path_is_taken_as_it_is_and_options_stand_anywhere(monkeypatch, folder):
    asked = []
    monkeypatch.setattr(loop, "Run", lambda config, stop: asked.append(config) or SimpleNamespace(train=lambda: 0))
    assert train_main(["epochs=null", "--data_path", folder, "max_steps=1"]) == 0
    assert (asked[0].data.path, asked[0].epochs, asked[0].max_steps) == (folder, None, 1)


def test_a_setting_with_dashes_is_told_how_settings_are_written(capsys):
    with pytest.raises(SystemExit) as end:
        train_main(["--max_steps", "30"])
    assert end.value.code == 2
    assert "--max_steps: give settings without dashes, as max_steps=30" in capsys.readouterr().err


def test_the_resolved_configuration_loads_again(tmp_path):
    import yaml

    config = load_config(None, ["model.preset=tiny", "optim.betas=[0.8, 0.9]"])
    path = tmp_path / "resolved.yaml"
    path.write_text(yaml.safe_dump(_lists(to_tree(config))))
    assert load_config(path) == config


def _lists(tree):
    if isinstance(tree, dict):
        return {k: _lists(v) for k, v in tree.items()}
    return [_lists(v) for v in tree] if isinstance(tree, list | tuple) else tree


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.learning_rate=1", ["optim.learning_rate", "lr"]),
        ("batch.battle=3", ["batch.battle", "did you mean 'battles'"]),
        ("modle.preset=tiny", ["modle", "model"]),
        ("optim.lr=fast", ["optim.lr", "fast", "number"]),
        ("batch.battles=many", ["batch.battles: give a whole number"]),
        ("data.formats=gen1ou", ["data.formats: give a list, as [a, b]"]),
        ("data.path=2024", ["data.path: give text, a number in quotes"]),
        ("compile=maybe", ["compile: give true or false or null"]),
        ("optim.betas=[0.9]", ["command line: optim.betas: give a list of 2, not of 1"]),
        ("resume=no", ["resume: YAML reads yes, no, on and off as true or false", "in quotes, or resume=never"]),
        ("hub.licence=off", ["hub.licence: YAML reads yes, no, on and off as true or false: put the word in quotes"]),
        ("batch.battles=0", ["batch.battles is 0; give 1 or more"]),
        ("data.heldout_share=0", ["command line: data.heldout_share=0.0 cannot be", "a share above 0"]),
        ("data.path=", ["data.path is empty: give text"]),
        ("max_steps", ["a.b=c"]),
        ("runs/mine.yaml", ["'runs/mine.yaml' is no setting: give a file of settings as --config runs/mine.yaml"]),
        ("data.formats=[gen1ou", ["data.formats", "YAML"]),
        ("objective.filter=best", ["imitation, winners, binary or exponential"]),
        ("eval.choose=best", ["eval.choose", "last or likelihood"]),
        ("objective.tau=0", ["objective.tau"]),
        ("objective.reward_scale=nan", ["objective.reward_scale", "above 0"]),
        ("objective.critic_weight=-1", ["objective.critic_weight", "0 or more"]),
        ("objective.clip=0", ["objective.clip"]),
        ("optim.schedule=linear", ["optim.schedule", "cosine or constant"]),
        ("optim.lr=nan", ["optim.lr"]),
        ("optim.lr=.inf", ["optim.lr"]),
        ("optim.betas=[2, 3]", ["optim.betas"]),
        ("optim.grad_clip=-1", ["optim.grad_clip", "0 for no clipping"]),
        ("optim.warmup_steps=-5", ["optim.warmup_steps"]),
        ("model.critics=0", ["model.critics", "1 or more"]),
        ("model.hidden_size=-8", ["model.hidden_size"]),
        ("model.matchup_width=-1", ["model.matchup_width", "0 (entities do not meet) or more"]),
        ("model.gammas=[0.9, 0.999, 0.999]", ["model.gammas", "each discount once"]),
        ("model.gammas=[0.5, 0.9]", ["model.act_gamma=0.999", "one of model.gammas"]),
        ("output=''", ["output=''", "a folder"]),
        ("model.value_bins=1", ["model.value_bins", "2 or more"]),
        ("model.dropout=1.5", ["model.dropout"]),
        ("model.gammas=[0.9, 1.0]", ["model.gammas"]),
        ("checkpoint.every=0", ["checkpoint.every", "1 or more"]),
        ("checkpoint.keep=-1", ["checkpoint.keep"]),
        ("log.every=0", ["log.every"]),
        ("eval.every=-3", ["eval.every"]),
        ("timeout_minutes=-1", ["timeout_minutes"]),
        ("epochs=nan", ["epochs"]),
        ("max_steps=0", ["max_steps"]),
        ("seed=99999999999999999999", ["seed"]),
        ("hub.every=-1", ["hub.every"]),
        ("cost.dollars_per_hour=-2", ["cost.dollars_per_hour"]),
        ("guard.spike_memory=0", ["guard.spike_memory"]),
        ("batch.turns=0", ["batch.turns", "or null"]),
        ("batch_scaling=grow", ["batch_scaling", "keep or multiply"]),
        ("model=tiny", ["model holds str, where keys were expected"]),
    ],
)
def test_mistakes_are_named(override, words):
    with pytest.raises(ValueError) as caught:
        load_config(None, [override])
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "at `$.batch`" not in str(caught.value)  # msgspec's own path, where our words name the key


@pytest.mark.parametrize(
    ("world", "scaling", "battles", "accumulate", "lr"),
    [(1, "keep", 64, 2, 3e-4), (2, "keep", 64, 1, 3e-4), (8, "keep", 16, 1, 3e-4), (4, "multiply", 64, 2, 6e-4)],
)
def test_the_global_batch_on_more_processes(world, scaling, battles, accumulate, lr):
    config = scale_to_world(
        load_config(None, ["batch.battles=64", "batch.accumulate=2", f"batch_scaling={scaling}"]), world
    )
    assert (config.batch.battles, config.batch.accumulate) == (battles, accumulate)
    assert config.optim.lr == pytest.approx(lr)
    with pytest.raises(ConfigError, match="batch_scaling=multiply"):
        scale_to_world(load_config(None), 3)


def test_a_mistake_names_the_file_and_the_command_line(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("optim: {schedule: linear}")
    with pytest.raises(ConfigError, match=r"run\.yaml: optim\.schedule='linear' cannot be"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"run\.yaml and command line: optim\.lr=nan cannot be"):
        load_config(path, ["optim.schedule=cosine", "optim.lr=nan"])


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("optim: {lr: 1e-4\nmodel: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_config(path)
    with pytest.raises(ConfigError, match="missing"):
        load_config(tmp_path / "missing.yaml")
    path.write_text("- a list")
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_config(path)


def test_a_file_that_is_no_utf8_is_named(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes("data: {path: Pokémon}".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"run\.yaml: not valid YAML: 'utf-8' codec"):
        load_config(path)


def test_a_path_keeps_what_means_something_in_yaml_or_is_refused():
    with pytest.raises(ConfigError, match=r"comment: put the value in quotes of its own, as 'output=\"runs/try #2\"'"):
        load_config(None, ["output=runs/try #2"])
    assert load_config(None, ['output="runs/try #2"']).output == "runs/try #2"
    assert load_config(None, ["output=runs/try#2"]).output == "runs/try#2"


def test_a_home_is_spelt_out(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("{output: ~/runs/x, data: {sources: [{path: ~/replays, formats: [gen1ou]}]}}")
    config = load_config(path, ["data.cache_dir=~/c"])
    home = str(Path.home())
    assert (config.output, config.data.cache_dir) == (f"{home}/runs/x", f"{home}/c")
    assert config.data.sources[0]["path"] == f"{home}/replays"


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_run_file_loads(path):
    assert load_config(path).output


def test_the_default_run_is_what_the_project_promises():
    config = load_config(RUNS[[p.stem for p in RUNS].index("h100_1gpu")])
    assert (config.model.preset, config.precision, config.compile, config.epochs) == ("base", "bf16", True, 3.0)
    assert (config.batch.battles, config.batch.accumulate, config.optim.lr) == (128, 1, 3e-4)
    assert (config.data.workers, config.data.prefetch, config.model.gradient_checkpointing) == (12, 4, False)
    assert (config.checkpoint.every, config.output) == (2000, "checkpoints/h100_base")
