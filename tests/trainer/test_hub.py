"""Push and pull by the real client against the stand-in for the Hub: byte for byte, with a card that parses; and a
pushed model acts by its name in a process that knows nothing of this repository."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, close_session

from battle.agents import TurnwiseAgent
from battle.saved_agent import model_folder
from data.hub_errors import HUB_ERRORS, said_of
from data.prepare import main as prepare
from model.modeling_turnwise import TurnwiseForOfflineRL
from tests.battle_files import make_battle
from tests.data.hub_server import StandInHub
from tests.packs import inputs_of, random_pack, tiny_network
from trainer import upload
from trainer.errors import CheckpointError
from trainer.export import code_copies, take_out
from trainer.hub import main as hub_main
from trainer.train import log_plainly

ROOT = Path(__file__).parents[2]


# Commands as `python -m trainer.hub` runs them, one after another in one process: exit code and what each said.
COMMANDS = """
import contextlib, io, json, sys
from trainer.hub import main
for command in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = main(command)
    print(json.dumps([code, said.getvalue()]))
"""


@pytest.fixture(scope="module")
def hub():
    server = StandInHub({})
    yield server
    server.close()


def signed_in(hub, folder):
    # Uploads go by Git LFS: the newer way, Xet, speaks to further servers.
    home = {"HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1"}
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test", **home}


@pytest.fixture(scope="module")
def exchanged(trained, hub, tmp_path_factory):
    """What was pushed as me/agent, pulled to `pulled` and pushed from there as me/again, packed in `packed` and pushed
    as me/packed, and with another licence as me/granted."""
    folder = tmp_path_factory.mktemp("exchanged")
    pulled, packed = folder / "pulled", folder / "packed"
    commands = [
        ["push", str(trained), "--to", "me/agent"], ["pull", "me/agent", "--to", str(pulled)],
        ["push", str(pulled), "--to", "me/again"],
        ["pack", str(trained), "--to", str(packed)], ["push", str(packed), "--to", "me/packed"],
        ["push", str(packed), "--to", "me/granted", "--licence", "cc0-1.0"],
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)], cwd=ROOT, env={**os.environ, **signed_in(hub, folder)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [code for code, _ in results] == [0] * len(commands), (results, done.stderr)
    return folder


def test_a_pushed_agent_comes_back_byte_for_byte(trained, exchanged, hub):
    ours = {p.name: p.read_bytes() for p in (trained / "model").iterdir() if p.is_file()}
    theirs = hub.uploads["me/agent"]
    assert {name: theirs[name] for name in ours} == ours
    assert set(theirs) - set(ours) == {"README.md", "training_curve.png"}
    assert ours["model.safetensors"] in hub.lfs.values()
    assert "POST /me/agent.git/info/lfs/objects/batch" in hub.requests
    assert all((exchanged / "pulled" / name).read_bytes() == content for name, content in ours.items())
    pack = random_pack(64)
    outputs = [
        TurnwiseForOfflineRL.from_pretrained(folder).eval()(**inputs_of(pack)).logits
        for folder in (trained / "model", exchanged / "pulled")
    ]
    assert torch.equal(*outputs)


def test_a_pulled_agent_is_pushed_again_without_what_the_pull_left_beside_it(exchanged, hub):
    assert (exchanged / "pulled" / ".cache").is_dir()
    again, first = ({**hub.uploads[name]} for name in ("me/again", "me/agent"))
    # Under its new name, by which its lines for use fetch it.
    assert again.pop("README.md") == first.pop("README.md").replace(b"me/agent", b"me/again").replace(
        b"name: agent", b"name: again"
    )
    assert again == first


def test_a_clean_process_without_the_repository_acts_by_the_models_name(trained, exchanged, hub, tmp_path):
    battle = make_battle(77, "gen9ou")
    work = tmp_path / "work"
    work.mkdir()
    (work / "states.json").write_text(json.dumps([battle.states[:5], battle.actions[:4]]))
    use = ModelCard(hub.uploads["me/agent"]["README.md"].decode()).text.split("```python\n")[1].split("```")[0]
    assert len(use.splitlines()) == 5
    script = (
        "import json, importlib.util as u\nassert u.find_spec('trainer') is None and u.find_spec('data') is None\n"
        f"states, actions = json.load(open('states.json'))\n{use}\n"
        "from transformers import AutoModel\n"
        "network = AutoModel.from_pretrained('me/agent', trust_remote_code=True)\n"
        "print(json.dumps([type(network).__name__, decision.action, decision.words, decision.probabilities]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=work, capture_output=True, text=True, timeout=120,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **signed_in(hub, tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = TurnwiseAgent.from_pretrained(trained / "model").decide(battle.states[:5], battle.actions[:4])
    kind, action, words, probabilities = json.loads(done.stdout.splitlines()[-1])
    assert (kind, action, words) == ("TurnwiseForOfflineRL", expected.action, expected.words)
    assert probabilities == pytest.approx(expected.probabilities, abs=1e-6)


def test_a_packed_agent_is_half_as_large_and_is_pushed_with_its_card_and_code(trained, exchanged, hub):
    packed = exchanged / "packed"
    assert not list(packed.glob("*.py"))
    whole, half = (folder / "model.safetensors" for folder in (trained / "model", packed))
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    states = make_battle(77, "gen9ou").states[:3]
    ours, theirs = (TurnwiseAgent.from_pretrained(folder).decide(states) for folder in (trained, packed))
    assert ours.win_chance is not None
    assert theirs.win_chance == pytest.approx(ours.win_chance, abs=0.02)
    assert theirs.probabilities == pytest.approx(ours.probabilities, abs=0.02)
    granted, mine = (ModelCard(hub.uploads[name]["README.md"].decode()) for name in ("me/granted", "me/packed"))
    assert (granted.data.license, mine.data.license) == ("cc0-1.0", "mit")
    assert granted.text.replace("me/granted", "me/packed") == mine.text
    assert 'get_class_from_dynamic_module("agents.TurnwiseAgent", "me/packed")' in mine.text  # its code is there now
    pushed = hub.uploads["me/packed"]
    assert str(packed).encode() not in pushed["README.md"]
    assert b"top-1" in pushed["README.md"]
    assert pushed["agents.py"] == (trained / "model" / "agents.py").read_bytes()


def test_a_packing_whose_card_fails_leaves_the_agent_there_as_it_was(tmp_path, monkeypatch):
    """New weights beside the card and win chances of the old ones would be untrue."""

    def fails(*_, **__):
        raise ValueError("no card")

    monkeypatch.setattr(upload, "documents", fails)
    tiny_network().save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="no card"):
        upload.pack(tmp_path / "model", tmp_path / "packed", None)
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("card", ["---\nlicense: [mit\n---\n", "---\n- mit\n---\n", b"---\nlicense: \xff\n---\n"])
def test_a_packing_says_which_card_it_cannot_read(card, tmp_path):
    tiny_network().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_bytes(card if isinstance(card, bytes) else card.encode())
    with pytest.raises(CheckpointError, match=r"README\.md: its metadata cannot be read"):
        upload.pack(tmp_path / "model", tmp_path / "packed", None)


def test_a_packing_takes_another_agents_place_and_nothing_elses(tmp_path, monkeypatch):
    monkeypatch.setattr(upload, "documents", lambda *_, **__: {"README.md": b"of it"})
    for name in ("first", "second"):
        tiny_network().save_pretrained(tmp_path / name)
    (tmp_path / "first" / "calibration.json").write_text("{}")
    target = tmp_path / "packed"
    upload.pack(tmp_path / "first", target, None)
    assert (target / "calibration.json").exists()
    upload.pack(tmp_path / "second", target, None)
    assert {path.name for path in target.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    (target / "main.c").write_text("")
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(FileExistsError, match=r"packed: holds main\.c, which no agent does: give a new or an empty"):
        upload.pack(tmp_path / "first", target, None)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


@pytest.mark.slow
def test_a_pull_over_another_agent_leaves_nothing_of_it(exchanged, hub, tmp_path):
    bare = {name: text for name, text in hub.uploads["me/agent"].items() if name != "calibration.json"}
    hub.uploads["me/bare"] = bare
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "calibration.json").write_text("{}")
    (tmp_path / "there" / "notes.txt").write_text("mine")
    command = [["pull", "me/bare", "--to", str(tmp_path / "there")]]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(command)], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, **signed_in(hub, exchanged)},
    )  # fmt: skip
    assert json.loads(done.stdout)[0] == 0, done
    assert {path.name for path in (tmp_path / "there").iterdir()} - {".cache"} == {*bare, "notes.txt"}


def test_popart_keeps_its_scale_in_a_packed_agent_and_in_bf16(tmp_path, monkeypatch):
    """A mean of 600 beside a deviation of 40: rounded to bf16, its statistics say 45."""
    monkeypatch.setattr(upload, "documents", lambda *_, **__: {})
    network = tiny_network(value_head="scalar")
    network.popart.mean.fill_(600.0)
    network.popart.second.fill_(600.0**2 + 40.0**2)
    network.save_pretrained(tmp_path / "model")
    upload.pack(tmp_path / "model", tmp_path / "packed", None)
    # safetensors writes for its owner's eyes alone.
    assert len({path.stat().st_mode for path in (tmp_path / "packed").iterdir()}) == 1
    for folder, dtype in (("packed", torch.float32), ("model", torch.bfloat16)):
        loaded = TurnwiseForOfflineRL.from_pretrained(tmp_path / folder, dtype=dtype)
        assert loaded.critics.weight.dtype == dtype
        torch.testing.assert_close(loaded.popart.std(), torch.full((4,), 40.0))


def test_an_agent_is_taken_out_to_where_nothing_else_lies(tmp_path, monkeypatch):
    source = tmp_path / "model"
    source.mkdir()
    for name in ("config.json", "agents.py"):
        (source / name).write_text("its own")
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is a file: give a folder"):
        take_out(source, tmp_path / "file", {})
    target = tmp_path / "some" / "where"
    for _ in range(2):  # over itself too, and what a push or a calibration adds goes
        take_out(source, target, {})
        assert {path.name for path in target.iterdir()} == {"config.json", *code_copies()}
        assert (target / "agents.py").read_text() == "its own"
        for name in ("README.md", "training_curve.png", "calibration.json"):
            (target / name).touch()
    monkeypatch.chdir(target)
    (target.parent / ".where.tmp" / "half").mkdir(parents=True)  # of a copy that was killed
    take_out(source, Path("."), {"README.md": b"a card"})
    assert (target / "README.md").read_text() == "a card"
    assert [path.name for path in target.parent.iterdir()] == ["where"]
    monkeypatch.chdir(tmp_path)
    (target / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match=r"holds thesis\.txt, which no agent does"):
        take_out(source, target, {})
    assert (target / "thesis.txt").exists()
    (target / "thesis.txt").unlink()
    (source / "lost").symlink_to("nowhere")
    with pytest.raises(shutil.Error, match="lost"):
        take_out(source, target, {})
    assert [path.name for path in target.parent.iterdir()] == ["where"]  # as it was, and nothing of the half beside it
    assert (target / "agents.py").read_text() == "its own"


def test_what_is_not_there_is_said(hub, tmp_path, capsys):
    done = subprocess.run(
        [sys.executable, "-m", "trainer.hub", "pull", "me/nothing", "--to", str(tmp_path / "x")],
        cwd=ROOT, env={**os.environ, **signed_in(hub, tmp_path)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "me/nothing" in done.stderr
    assert hub_main(["push", str(tmp_path), "--to", "me/agent"]) == 1
    assert "no model here" in capsys.readouterr().err


@pytest.mark.slow
def test_what_the_hub_does_not_give_is_said_in_a_line(trained, exchanged, hub, tmp_path, cached):
    commands = [
        ["pull", "me/nobody", "--to", str(tmp_path / "x")],
        ["pull", "not a name", "--to", str(tmp_path / "x")],
    ]
    script = (
        f"{COMMANDS}\nfrom trainer.evaluate import main as evaluate\n"
        f"code = evaluate(['--checkpoint', 'me/agent', '--data', {str(cached)!r}, '--battles', '2'])\n"
        "print('evaluated', code)\n"
        f"evaluate(['--checkpoint', 'me/nobody', '--data', {str(cached)!r}])\n"
        "from battle.players import make_player, parse_player\n"
        "print('plays as', make_player(parse_player('hub=me/agent')).name)\n"
        "try:\n    make_player(parse_player('me/nobody'))\n"
        "except FileNotFoundError as error:\n    print('none:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(commands)], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, **signed_in(hub, tmp_path)},
    )  # fmt: skip
    assert "evaluated 0" in done.stdout, done.stderr
    pulls = [json.loads(line)[1] for line in done.stdout.splitlines() if line.startswith("[")]
    said = [line for text in (*pulls, done.stderr) for line in text.splitlines() if line.startswith("error: ")]
    assert len(said) == 3, (pulls, done.stderr)
    assert said[0].startswith("error: me/nobody: is not on the Hub, or private")
    assert said[1].startswith("error: not a name: is no name on the Hub")
    assert said[2].startswith("error: 'me/nobody': no such folder")
    assert "Traceback" not in done.stderr
    assert "plays as hub" in done.stdout
    assert "none: me/nobody: no such folder, and the Hub does not give it (404" in done.stdout


@pytest.mark.parametrize("command", ["trainer.hub pull me/agent", "data.prepare download"])
def test_a_folder_that_cannot_be_is_named_before_the_hub_is_asked(command, tmp_path, capsys):
    there = tmp_path / "there"
    there.write_text("")
    module, *words = command.split()
    with pytest.raises(SystemExit):
        (hub_main if module == "trainer.hub" else prepare)([*words, "--to", str(there)])
    assert f"argument --to: {str(there)!r}: cannot be written: give another folder" in capsys.readouterr().err


def test_requests_of_the_hubs_client_are_not_told():
    log_plainly()
    client = HUB_ERRORS[0].__module__.split(".")[0]
    assert logging.getLogger(client).level == logging.WARNING


def test_a_network_that_is_gone_is_told_from_a_refusal():
    with pytest.raises(HUB_ERRORS) as raised:
        HfApi(endpoint="http://127.0.0.1:9").create_repo("me/agent", token="hf_test")
    assert said_of(raised.value, "me/agent").startswith("me/agent: the Hub isn't reached")


def test_an_endpoint_that_is_no_address_is_said_of_an_agents_name(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "nonsense")
    with pytest.raises(FileNotFoundError, match=r"does not give it .*http"):
        model_folder("me/agent")


@pytest.mark.skipif(find_spec("socksio") is not None, reason="with its package a SOCKS proxy is one as any other")
def test_a_proxy_that_wants_a_package_names_it(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    close_session()
    try:
        with pytest.raises(HUB_ERRORS) as raised:
            HfApi(endpoint="http://127.0.0.1:9").create_repo("me/agent", token="hf_test")
        with pytest.raises(FileNotFoundError, match=r"does not give it .*socksio"):
            model_folder("me/agent")
    finally:
        monkeypatch.delenv("ALL_PROXY")
        close_session()
    said = said_of(raised.value, "me/agent")
    assert re.match(r"me/agent: the Hub isn't reached \(.*'socksio'.*\); check the network", said)
