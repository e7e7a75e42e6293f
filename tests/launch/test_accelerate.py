"""The files of launch/accelerate: every one starts the world that it names."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env

from tests.trainer.conftest import SMALL
from trainer.world import free_port

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "launch" / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_starts_torchrun_with_its_processes_on_each_machine(file, monkeypatch):
    """accelerate's own launcher for several machines, pdsh, knows none but this one without a hostfile: each would
    train alone."""
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    whole = yaml.safe_load(file.read_text())
    machines = whole["num_machines"]
    for rank in range(machines):
        options = ["--config_file", str(file), "--machine_rank", str(rank), "--main_process_ip", "127.0.0.1"]
        arguments = launch_command_parser().parse_args([*options, "--main_process_port=0", "-m", "trainer.train"])
        arguments, _, _ = _validate_launch_command(arguments)
        arguments.deepspeed_fields_from_accelerate_config = ",".join(whole["deepspeed_config"])  # as its command does
        command, _ = prepare_deepspeed_cmd_env(arguments)
        assert command is None or command[0] != "deepspeed"
        assert int(arguments.nproc_per_node) * machines == whole["num_processes"]
        if machines > 1:
            assert (int(arguments.nnodes), int(arguments.node_rank)) == (machines, rank)
            assert arguments.rdzv_endpoint.startswith("127.0.0.1:") or arguments.master_addr == "127.0.0.1"


@pytest.mark.slow
def test_two_launchers_are_one_world(tmp_path):
    """The file for two machines, started twice here, with one CPU process each: `processes=2` would end any other."""
    text = (ROOT / "launch" / "accelerate" / "2nodes_zero1.yaml").read_text()
    file = tmp_path / "two.yaml"
    file.write_text(text.replace("use_cpu: false", "use_cpu: true").replace("num_processes: 16", "num_processes: 2"))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file), "--main_process_ip"]
    command += ["127.0.0.1", "--main_process_port", str(free_port())]
    settings = [*SMALL, "data.path=data/sample", f"output={tmp_path / 'run'}", "processes=2", "max_steps=2"]
    launchers = [
        subprocess.Popen([*command, "--machine_rank", rank, "-m", "trainer.train", *settings], cwd=ROOT)
        for rank in ("0", "1")
    ]
    assert [launcher.wait(timeout=300) for launcher in launchers] == [0, 0]
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
