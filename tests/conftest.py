"""Markers' rules: slow tests run only with --full, GPU tests only where CUDA is; each skip says why."""

import os

# One thread each: tests start processes of their own, and threads that wait for a busy core spin their time away.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the slow tests too (make test-full)")


def pytest_collection_modifyitems(config, items):
    full = config.getoption("--full")
    needs_gpu = [item for item in items if "gpu" in item.keywords]
    if needs_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in needs_gpu:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    if not full:
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: run by `make test-full`"))
