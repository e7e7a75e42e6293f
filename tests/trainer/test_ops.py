"""DeepSpeed's operation for the CPU: the lock of a killed build holds nobody up, that of a living one does."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch.bench_engines import environment

ROOT = Path(__file__).parents[2]
NAME = "deepspeed_shm_comm"
BUILDS = (
    "import logging, deepspeed; logging.basicConfig(); from trainer.ops import build_communication;"
    "print('asks', flush=True); build_communication()"
)
HOLDS = (
    "import os, sys, time; fd = os.open(sys.argv[1], os.O_CREAT | os.O_EXCL); print('up', flush=True); time.sleep(600)"
)


def build(folder=None):
    """A process that wants the operation, of `folder` or of where all tests have it; what it said."""
    env = {**environment(), **({"TORCH_EXTENSIONS_DIR": str(folder)} if folder else {})}
    return subprocess.Popen(
        [sys.executable, "-c", BUILDS], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder of our own with the operation in it, compiled where it never was."""
    process = build()
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    folder = tmp_path_factory.mktemp("extensions")
    shutil.copytree(Path(environment()["TORCH_EXTENSIONS_DIR"]) / NAME, folder / NAME)
    return folder


def test_a_lock_that_a_killed_build_left_is_removed_and_told(built):
    lock = built / NAME / "lock"
    lock.touch()
    process = build(built)
    _, errors = process.communicate(timeout=60)  # waited for ever without
    assert process.returncode == 0, errors
    assert f"{lock}: left by a build that was killed" in errors
    assert not lock.exists()


def test_a_build_that_lives_is_waited_for_until_it_is_killed(built):
    lock = built / NAME / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "up\n"
    process = build(built)
    try:
        while process.stdout.readline() != "asks\n":  # DeepSpeed prints of its own
            assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=3)  # loading what is compiled takes half a second
        assert lock.exists()
        holder.kill()
        holder.wait()
        _, errors = process.communicate(timeout=60)
    finally:
        holder.kill()
        process.kill()
    assert process.returncode == 0, errors
    assert not lock.exists()
