"""Where memory is too short for a run: whether an error says so, and which settings need less."""

import torch

from trainer.config import RunConfig

# What CUDA, cuBLAS, cuDNN and the CPU's allocator say where PyTorch's own error for a tensor is not what is raised.
SHORT = ("CUDA error: out of memory", "_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: can't allocate memory")


def out_of_memory(error: Exception) -> bool:
    """Whether memory was short: PyTorch's for a tensor, or what libraries take past its allocator."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in SHORT)


def said_of(error: Exception, config: RunConfig) -> str:
    """Such an error in a line, with what to set instead."""
    first, batch = str(error).strip().split("\n")[0], config.batch
    smaller = {"battles": max(1, batch.battles // 2), "accumulate": 2 * batch.accumulate}
    if batch.turns is not None:
        smaller["turns"] = batch.turns // 2
    settings = " ".join(f"batch.{key}={value}" for key, value in smaller.items())
    return (
        f"memory is too short for packs of batch.battles={batch.battles} ({first}): `python -m launch.find_pack` with "
        f"the same settings finds how many fit; {settings} is the same step in smaller packs, and "
        "model.gradient_checkpointing=true needs less for each"
    )
