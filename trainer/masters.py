"""fp32 parameters whatever holds them: plain modules, FSDP2's shards, or DeepSpeed's partitioned masters (law 13)."""

import torch
from torch import nn


def fp32_master(parameter: nn.Parameter) -> torch.Tensor:
    """The full fp32 value of a parameter. Under DeepSpeed and FSDP2 every process must call it, in the same order."""
    if hasattr(parameter, "_hp_mapping") or hasattr(parameter, "ds_id"):
        from deepspeed.utils import safe_get_full_fp32_param

        return safe_get_full_fp32_param(parameter).to(parameter.device)
    value = parameter.detach()
    return (value.full_tensor() if hasattr(value, "full_tensor") else value).float()
