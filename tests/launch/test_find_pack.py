"""The finder: its search over a known limit, one real try, and the whole of it within a budget on the CPU."""

import os

import pytest
import torch

from launch import find_pack
from launch.find_pack import GIB, largest, try_pack
from tests.trainer.conftest import SIZES, SMALL

# What the GPU's try trains. On the CPU too: no other test there would build it.
TRIED = [*(s for s in SMALL if s not in SIZES and "batch" not in s), "model.preset=small"]


@pytest.mark.parametrize("limit", [0, 1, 7, 8, 9, 100, 1000])
def test_the_search_ends_within_a_sixteenth_of_the_limit(limit):
    tried = []

    def fits(number):
        tried.append(number)
        return number <= limit

    found = largest(fits, start=4, most=500)
    assert found <= limit
    assert found >= min(limit, 500) * 15 / 16 - 1
    assert len(tried) == len(set(tried)) <= 16


def test_a_try_trains_and_tells_its_peak(battles, tmp_path, monkeypatch):
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path))
    found = try_pack([*TRIED, f"data.path={battles}", "processes=8"], None, 2)  # of a run that is launched on eight
    assert found["battles"] == 2
    assert found["turns"] % 64 == 0
    assert 0.1 * GIB < found["peak"] < 64 * GIB


def test_a_library_without_memory_is_a_try_that_does_not_fit(battles, tmp_path, monkeypatch):
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path))
    errors = [RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")]
    errors.append(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))

    def fails(*_, **__):
        raise errors.pop(0)

    monkeypatch.setattr(find_pack.Run, "_to_device", fails)
    assert try_pack([*SMALL, f"data.path={battles}"], None, 2)["peak"] is None
    with pytest.raises(RuntimeError, match="shapes"):
        try_pack([*SMALL, f"data.path={battles}"], None, 2)


def test_on_the_cpu_a_budget_must_be_given(capsys):
    if torch.cuda.is_available():
        pytest.skip("CUDA tells its own memory")
    with pytest.raises(SystemExit):
        find_pack.main([])
    assert "--memory-gib" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_prints_the_override_of_what_fits(battles, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path))
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    settings = [*(s for s in SMALL if "batch" not in s), f"data.path={battles}"]
    assert find_pack.main(["--memory-gib", "1.5", "--start", "4", "--most", "256", *settings]) == 0
    *tries, override = capsys.readouterr().out.splitlines()
    best = int(override.removeprefix("batch.battles="))
    peaks = {int(line.split()[0]): "too much" in line for line in tries}
    assert not peaks[best]
    assert all(number > best for number, over in peaks.items() if over)
    assert find_pack.main(["--memory-gib", "0.01", "--start", "4", *settings]) == 1
    assert "nothing fits" in capsys.readouterr().err


@pytest.mark.gpu
def test_a_try_that_runs_out_of_cuda_memory_tells_no_peak(battles, tmp_path, monkeypatch):
    """One try, not a search: `launch/gpu_check.sh` has 150 s for all GPU tests, and a search is ten processes."""
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path))
    settings = [*TRIED, f"data.path={battles}"]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2 * GIB / torch.cuda.get_device_properties(0).total_memory)
    try:
        assert try_pack(settings, None, 1024)["peak"] is None
        assert 0 < try_pack(settings, None, 8)["peak"] <= 2 * GIB
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
