"""fp32 parameters whatever holds them: plain modules, or DeepSpeed's partitioned masters (law 13)."""

import torch
from torch import nn


def fp32_master(parameter: nn.Parameter) -> torch.Tensor:
    """The full fp32 value of a parameter. Under DeepSpeed every process must call it, in the same order."""
    if hasattr(parameter, "_hp_mapping") or hasattr(parameter, "ds_id"):
        from deepspeed.utils import safe_get_full_fp32_param

        return safe_get_full_fp32_param(parameter).to(parameter.device)
    return parameter.detach().float()


def fp32_state_dict(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters (fp32) and persistent buffers of a module by name, on CPU. Collective under DeepSpeed."""
    masters = {name: fp32_master(parameter).cpu() for name, parameter in module.named_parameters()}
    buffers = {name: value.cpu() for name, value in module.state_dict().items() if name not in masters}
    return {**masters, **buffers}
