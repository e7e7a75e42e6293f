"""Push and pull by the real client against the stand-in for the Hub: byte for byte, with a card that parses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from model.modeling_turnwise import TurnwiseForOfflineRL
from tests.data.hub_server import StandInHub
from tests.packs import inputs_of, random_pack

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub():
    server = StandInHub({})
    yield server
    server.close()


def hub_command(hub, tmp_path, *arguments):
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_test"}
    return subprocess.run(
        [sys.executable, "-m", "trainer.hub", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_pushed_agent_comes_back_byte_for_byte(trained, hub, tmp_path):
    pushed = hub_command(hub, tmp_path, "push", str(trained), "--to", "me/agent")
    assert pushed.returncode == 0, pushed.stderr
    ours = {p.name: p.read_bytes() for p in (trained / "model").iterdir() if p.is_file()}
    theirs = hub.uploads["me/agent"]
    assert {name: theirs[name] for name in ours} == ours
    card = ModelCard(theirs["README.md"].decode())
    assert card.data.eval_results[0].metric_name == "top-1 accuracy at γ = 0.999"
    assert "format: gen1ou" in card.text
    assert "CC-BY-NC-4.0" in card.text
    pulled = hub_command(hub, tmp_path, "pull", "me/agent", "--to", str(tmp_path / "pulled"))
    assert pulled.returncode == 0, pulled.stderr
    assert all((tmp_path / "pulled" / name).read_bytes() == content for name, content in ours.items())
    pack = random_pack(64)
    outputs = [
        TurnwiseForOfflineRL.from_pretrained(folder).eval()(**inputs_of(pack)).logits
        for folder in (trained / "model", tmp_path / "pulled")
    ]
    assert torch.equal(*outputs)


def test_what_is_not_there_is_said(hub, tmp_path):
    done = hub_command(hub, tmp_path, "pull", "me/nothing", "--to", str(tmp_path / "x"))
    assert done.returncode == 1
    assert "me/nothing" in done.stderr
    done = hub_command(hub, tmp_path, "push", str(tmp_path), "--to", "me/agent")
    assert done.returncode == 1
    assert "no model here" in done.stderr
