"""`python -m trainer.evaluate`: its table, its file, and which battles it judges."""

import json
import shutil

import lz4.frame

from tests.battle_files import Style, write_battles
from trainer.evaluate import main as evaluate_main


def test_evaluate_command_prints_a_table_and_writes_json(trained, cached, capsys, tmp_path):
    out = tmp_path / "judged" / "evaluation.json"
    assert evaluate_main(["--checkpoint", str(trained), "--data", str(cached), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "format: gen1ou" in text
    assert "kind: forced switch" in text
    result = json.loads(out.read_text())
    saved = json.loads((trained / "evaluation.json").read_text())
    assert result["policy"] == saved["policy"]
    command = ["--checkpoint", str(trained), "--data", str(cached), "--formats", "gen1ou", "--filter", "won"]
    assert evaluate_main([*command, "--out", str(out)]) == 0
    assert 0 < json.loads(out.read_text())["policy"][0]["decisions"] < saved["policy"][0]["decisions"]
    assert evaluate_main([*command[:-4], "--battles", "3", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["policy"][0]["battles"] <= 3
    # The run's own table is of its own data, whatever else its agent is judged on.
    assert json.loads((trained / "evaluation.json").read_text()) == saved
    assert evaluate_main([*command, "--battles", "0"]) == 1
    assert "battles=0" in capsys.readouterr().err
    assert {row["gamma"] for row in result["values"]} == {0.9, 0.99, 0.999, 0.9999}
    assert evaluate_main(["--checkpoint", str(tmp_path), "--data", str(cached)]) == 1
    assert "no model here" in capsys.readouterr().err


def test_the_policy_is_judged_by_the_battles_that_it_clones(trained, cached, tmp_path):
    """The table of a run with data.clone, which none of this command's could be: the values are of all battles."""
    command, found = ["--checkpoint", str(trained), "--data", str(cached), "--out", str(tmp_path / "e.json")], {}
    for name, more in (("all", []), ("cloned", ["--clone", "won"]), ("taken", ["--filter", "won"])):
        assert evaluate_main([*command, *more]) == 0
        found[name] = json.loads((tmp_path / "e.json").read_text())
    assert found["cloned"]["policy"][0]["nll"] == found["taken"]["policy"][0]["nll"]
    assert found["cloned"]["values"] == found["all"]["values"] != found["taken"]["values"]


def test_battles_that_no_model_was_trained_on_are_judged_whole(trained, cached, tmp_path, capsys):
    """Of twelve files from elsewhere the model's own rule holds out two or none."""
    write_battles(tmp_path / "b", 12, seed=77, formats=("gen1ou",), style=Style(max_turns=10))
    command = ["--checkpoint", str(trained), "--data", str(tmp_path / "b"), "--out", str(tmp_path / "e.json")]
    assert evaluate_main([*command, "--all"]) == 0
    assert "judged: 12 of 12 battles, of all there" in capsys.readouterr().out
    result = json.loads((tmp_path / "e.json").read_text())
    assert result["policy"][0]["battles"] == 12
    assert not any(row["group"].startswith("team") for row in result["policy"])  # nobody knows which it has seen
    one = next((tmp_path / "b").rglob("*.lz4"))
    shutil.copytree(one.parent, tmp_path / "one" / one.parent.name, ignore=lambda _, names: {*names} - {one.name})
    command[3] = str(tmp_path / "one")
    assert evaluate_main(command) == 1
    assert "; or judge all of them by --all, where the model was trained on none" in capsys.readouterr().err
    assert evaluate_main([*command, "--all", "--battles", "1"]) == 0
    # Without the flag the table says how many it is of.
    assert evaluate_main(["--checkpoint", str(trained), "--data", str(cached), "--battles", "3"]) == 0
    assert "judged: 3 of " in (text := capsys.readouterr().out)
    assert "battles, held out by rule: 0.15 by battle" in text


def test_a_win_chance_worse_than_a_constant_is_said(trained, cached, tmp_path, caplog):
    shutil.copytree(trained / "model", tmp_path / "model")
    fitted = json.loads((tmp_path / "model" / "calibration.json").read_text())
    fitted["gammas"]["0.9"] = {"slope": 0.0, "intercept": 9.0}
    (tmp_path / "model" / "calibration.json").write_text(json.dumps(fitted))
    command = ["--checkpoint", str(tmp_path / "model"), "--data", str(cached)]
    assert evaluate_main([*command, "--gamma", "0.9"]) == 0
    assert caplog.text.count("win chance at γ = 0.9: its Brier score over ") == 1


def test_battles_with_illegal_actions_can_be_evaluated_as_they_were_trained_on(trained, tmp_path, capsys):
    data = tmp_path / "battles"
    write_battles(data, 40, seed=9, formats=("gen1ou",))
    for path in data.rglob("*.lz4"):
        content = json.loads(lz4.frame.decompress(path.read_bytes()))
        content["actions"][0] = 9  # terastallization, unknown to the first generation
        path.write_bytes(lz4.frame.compress(json.dumps(content).encode()))
    command = ["--checkpoint", str(trained), "--data", str(data)]
    assert evaluate_main(command) == 1
    assert "is illegal in its state" in capsys.readouterr().err
    assert evaluate_main([*command, "--illegal-actions", "unrecorded"]) == 0
    assert "format: gen1ou" in capsys.readouterr().out


def test_the_table_is_shown_where_it_cannot_be_written(trained, cached, capsys):
    assert evaluate_main(["--checkpoint", str(trained), "--data", str(cached), "--out", "/dev/full"]) == 1
    out, err = capsys.readouterr()
    assert "error: /dev/full: No space left on device: free some space or choose another file" in err
    assert "format: gen1ou" in out
