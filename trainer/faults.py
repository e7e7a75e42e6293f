"""Faults that libraries raise in words of their own, told in a line with what to set instead."""

import os

import torch

from trainer.config import RunConfig, scale_to_world
from trainer.world import deepspeed_file

# What CUDA, cuBLAS, cuDNN and the CPU's allocator say where PyTorch's own error for a tensor is not what is raised.
NO_MEMORY = ("CUDA error: out of memory", "_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: can't allocate memory")
# Of inductor on a CPU, of Triton on a GPU, and of either's compiler, whose words both hand on.
NO_COMPILER = ("No working C++ compiler found", "Failed to find C compiler", "Python.h: No such file")


def out_of_memory(error: Exception) -> bool:
    """Whether memory was short: PyTorch's for a tensor, or what libraries take past its allocator."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in NO_MEMORY)


def said_of(error: Exception, config: RunConfig) -> str | None:
    """What is wrong and the mend; None: no fault of this kind."""
    first = str(error).strip().split("\n")[0]
    if out_of_memory(error):
        world = int(os.environ.get("WORLD_SIZE", "1"))
        batch = scale_to_world(config, world).batch  # that of the packs which did not fit
        shared = world if config.batch_scaling == "keep" else 1
        smaller = {"battles": max(1, batch.battles // 2), "accumulate": 2 * batch.accumulate * shared}
        if batch.turns is not None:
            smaller["turns"] = batch.turns // 2
        settings = " ".join(f"batch.{key}={value}" for key, value in smaller.items())
        return (
            f"memory is too short for packs of batch.battles={batch.battles} ({first}): `python -m launch.find_pack` "
            f"with the same settings finds how many fit; {settings} is the same step in smaller packs, and "
            "model.gradient_checkpointing=true needs less for each"
        )
    if any(words in str(error) for words in NO_COMPILER):
        return (
            f"torch.compile lacks a compiler or Python's headers ({first}): install them (Debian: apt-get install g++ "
            "python3-dev), or set compile=false, which trains without, more slowly"
        )
    if "DeepSpeed" in getattr(error, "title", ""):  # pydantic's, which is not there where DeepSpeed is not
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return f"{deepspeed_file(config)}: DeepSpeed does not take it ({told}): see the files of ds_configs/"
    return None
