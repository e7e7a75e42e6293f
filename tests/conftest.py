"""Markers' rules: slow tests run only with --full, GPU tests only with `-m gpu`; each skip says why. Shared battles."""

import gc
import os

# One thread each: tests start processes of their own, and threads that wait for a busy core spin their time away.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from filelock import FileLock

from tests.battle_files import Style, write_battles

gc.disable()  # until the tests are collected: all that their libraries make stays


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the slow tests too (make test-full)")


def asks_for_gpu(config):
    expression = config.getoption("markexpr")
    return "gpu" in expression and "not gpu" not in expression


def pytest_configure(config):
    """Numbers and processes are those of a CPU, also where there is a GPU: two processes cannot share one by NCCL."""
    if not asks_for_gpu(config):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config, items):
    full = config.getoption("--full")
    needs_gpu = [item for item in items if "gpu" in item.keywords]
    if needs_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in needs_gpu:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and `-m gpu`, which shows it"))
    if not full:
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: run by `make test-full`"))


def pytest_collection_finish(session):
    """Keeps the collector from walking half a million objects of libraries again and again, a tenth of the time."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that the test workers have in common; whoever makes a thing in it holds the lock beside it."""
    root = tmp_path_factory.getbasetemp()
    # By its variable: a machine with a GPU may lack pytest-xdist, and its fixture `worker_id`.
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "shared"
    root.mkdir(exist_ok=True)
    return root


@pytest.fixture(scope="session")
def battles(shared):
    """A folder of 80 generated battles, most of their choices by a rule."""
    root = shared / "battles"
    with FileLock(shared / "battles.lock"):
        if not root.exists():
            write_battles(root, 80, seed=1, style=Style(noise=0.05, missing=0.03, max_turns=30))
    return root


@pytest.fixture(autouse=True, scope="session")
def fp32_by_default():
    """Runs that name no precision have one, whatever this processor multiplies: bounds are of its numbers."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
        yield
