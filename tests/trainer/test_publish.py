"""A run that pushes itself: during training and at its end, through faults of the Hub, by the real client."""

import json
import os
import threading

import pytest
from huggingface_hub import ModelCard, constants

from tests.data.hub_server import StandInHub
from tests.trainer.conftest import SMALL
from trainer import publish
from trainer.config import HubConfig, load_config
from trainer.loop import Run
from trainer.publish import Publisher
from trainer.train import main as train_main


@pytest.fixture
def hub(monkeypatch):
    server = StandInHub({})
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr(publish, "WAITS", (0.01, 0.01))
    yield server
    server.close()


def settings_of(battles, output):
    return [
        *SMALL, f"data.path={battles}", f"output={output}", "eval.every=5", "checkpoint.every=5", "checkpoint.keep=1",
        "log.every=5", "hub.push=true", "hub.to=me/agent", "log.report=true",
    ]  # fmt: skip


def test_a_run_is_pushed_while_it_trains_and_at_its_end(hub, cached, tmp_path):
    settings = [*settings_of(cached, tmp_path), "max_steps=20", "hub.every=10", "cost.dollars_per_hour=2.5"]
    assert Run(load_config(None, settings)).train() == 0
    assert hub.messages[0] == "Step 10"
    assert hub.messages[-1] == "Step 20"
    theirs = hub.uploads["me/agent"]
    ours = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir() if path.is_file()}
    assert {name: theirs[name] for name in ours} == ours
    assert theirs["training_curve.png"].startswith(b"\x89PNG")
    card = ModelCard(theirs["README.md"].decode())
    assert "20 steps in" in card.text
    assert "cost: $0.0" in card.text
    assert "format: gen1ou" in card.text
    assert not (tmp_path / publish.STAGED).exists()
    assert (tmp_path / "report.html").exists()


def test_a_fault_of_the_hub_is_tried_again(hub, trained, tmp_path, caplog):
    hub.refuse_commits = 1
    publisher = Publisher(HubConfig(push=True, to="me/agent"), trained)
    publisher.finish(trained / "model", 120)
    assert publisher.pushed == [120]
    assert "again in" in caplog.text
    assert "model.safetensors" in hub.uploads["me/agent"]


def test_a_push_leaves_nothing_of_an_earlier_agent(hub, trained):
    publisher = Publisher(HubConfig(push=True, to="me/agent", every=1), trained)
    publisher.finish(trained / "model", 120)
    theirs = hub.uploads["me/agent"]
    theirs["notes.md"] = b"their own"
    assert "calibration.json" in theirs
    publisher.offer(trained / "step_00000060", 60)  # a checkpoint is not calibrated
    publisher.thread.join()
    assert publisher.pushed == [120, 60]
    assert "calibration.json" not in theirs
    assert theirs["notes.md"] == b"their own"
    assert theirs["model.safetensors"] == (trained / "step_00000060" / "model" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_push_that_never_succeeds_ends_no_run(hub, cached, tmp_path, caplog):
    hub.refuse_commits = 100
    settings = [*settings_of(cached, tmp_path), "max_steps=10", "hub.every=5"]
    assert Run(load_config(None, settings)).train() == 0
    assert "by hand: python -m trainer.hub push" in caplog.text
    assert "model.safetensors" not in hub.uploads["me/agent"]
    assert json.loads((tmp_path / "evaluation.json").read_text())["policy"]


@pytest.mark.parametrize(("name", "said"), [("null", "hub.to is null"), ("me/my/agent", "is no name on the Hub")])
def test_a_run_without_a_name_to_push_to_is_refused(cached, tmp_path, capsys, name, said):
    settings = [*SMALL, f"data.path={cached}", f"output={tmp_path}", "max_steps=1", "hub.push=true", f"hub.to={name}"]
    assert train_main(settings) == 1
    assert said in capsys.readouterr().err


def test_where_nobody_is_signed_in_that_is_said_at_the_start_and_the_end_waits_for_no_further_try(
    hub, trained, caplog, monkeypatch
):
    monkeypatch.setattr(publish, "get_token", lambda: None)
    publisher = Publisher(HubConfig(push=True, to="me/agent"), trained)
    assert "hf auth login" in caplog.text
    hub.refuse_commits = 1
    publisher.finish(trained / "model", 120)
    assert hub.refuse_commits == 0
    assert publisher.pushed == []
    assert "the push of step 120 to me/agent failed" in caplog.text


@pytest.fixture
def pushes(monkeypatch):
    """What a publisher hands to the upload: the step its weights are of, how often their file is linked, the rest."""
    made = []

    def taken(model, *rest):
        weights = model / "weights"
        made.append((int(weights.read_text()), weights.stat().st_nlink, rest))
        return "there"

    monkeypatch.setattr(publish, "push", taken)
    monkeypatch.setattr(publish, "get_token", lambda: "hf_test")
    return made


def checkpoint_of(output, step):
    folder = output / f"step_{step}"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights").write_text(str(step))
    return folder


def offered(publisher, output, *steps):
    for step in steps:
        publisher.offer(checkpoint_of(output, step), step)
        if publisher.thread is not None:
            publisher.thread.join()
    return publisher.pushed


def test_a_checkpoint_is_pushed_every_so_many_steps_and_the_last_as_the_finished_agent(pushes, tmp_path, caplog):
    config = HubConfig(push=True, to="me/agent", every=10, licence="cc0-1.0", private=True)
    publisher = Publisher(config, tmp_path, start=100, total=140)
    assert offered(publisher, tmp_path, 105, 110, 115) == [110]
    publisher.offer(tmp_path / "pruned", 120)
    assert "step 120 is not pushed: its model could not be staged" in caplog.text
    assert offered(publisher, tmp_path, 129, 130, 140) == [110, 130]
    publisher.finish(tmp_path / "step_140" / "model", 140)
    assert publisher.pushed == [110, 130, 140]
    assert not (tmp_path / publish.STAGED).exists()
    for (step, links, rest), linked in zip(pushes, (2, 2, 1), strict=True):
        assert links == linked
        assert rest == ("me/agent", "cc0-1.0", True, tmp_path, f"Step {step}")


def test_no_push_starts_beside_another_and_the_last_waits_for_it(pushes, tmp_path, monkeypatch):
    free, taken = threading.Event(), publish.push

    def slow(model, *rest):
        assert free.wait(30)
        return taken(model, *rest)

    def none(*_):
        raise OSError("no links here")

    monkeypatch.setattr(publish, "push", slow)
    monkeypatch.setattr(os, "link", none)
    publisher = Publisher(HubConfig(push=True, to="me/agent", every=10), tmp_path)
    for step in (10, 20):
        publisher.offer(checkpoint_of(tmp_path, step), step)
    threading.Timer(0.1, free.set).start()
    monkeypatch.setattr(publisher.thread, "join", lambda join=publisher.thread.join: (join(), pushes.append("waited")))
    publisher.finish(checkpoint_of(tmp_path, 30) / "model", 30)
    assert [made if made == "waited" else made[0] for made in pushes] == [10, "waited", 30]


def test_each_further_try_waits_longer_and_nothing_is_pushed_unasked(pushes, tmp_path, monkeypatch):
    waited = []

    def refused(*_):
        raise OSError("busy")

    for config in (HubConfig(to="me/agent", every=1), HubConfig(push=True, to="me/agent", every=0)):
        publisher = Publisher(config, tmp_path / str(config.push))
        assert offered(publisher, tmp_path / str(config.push), 5, 6) == []
        assert publisher.thread is None
    quiet = Publisher(HubConfig(to="me/agent"), tmp_path)
    quiet.finish(tmp_path, 6)
    assert quiet.pushed == pushes == []
    monkeypatch.setattr(publish, "push", refused)
    monkeypatch.setattr(publish.time, "sleep", waited.append)
    Publisher(HubConfig(push=True, to="me/agent"), tmp_path).finish(tmp_path, 6)
    assert tuple(waited) == publish.WAITS


@pytest.mark.parametrize(
    ("push", "to", "said"), [(False, "me/agent", True), (False, None, False), (True, "me/agent", False)]
)
def test_a_name_without_a_push_is_told_of(push, to, said, tmp_path, caplog):
    """At the start: at the end of the run the machine may be gone, and the agent with it."""
    Publisher(HubConfig(push=push, to=to, every=10), tmp_path)
    assert ("hub.to=me/agent: nothing is pushed there without hub.push=true" in caplog.text) == said
