"""Which weights a model has, whatever its folder is called."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def fingerprint_of(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256, in hexadecimal digits, of named tensors' values in the order of their names. Floating ones count as
    fp32, in which a model plays that was saved in bf16."""
    digest = hashlib.sha256()
    for _, tensor in sorted(weights.items()):
        digest.update((tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy().tobytes())
    return digest.hexdigest()
