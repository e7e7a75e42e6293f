"""Every attention of the model, and the one boundary where q, k and v are given the dtype that a kernel takes.

Packed attention sees N turns of many battles end to end; a turn attends to the earlier turns of its own window and to
nothing else. Implementations:

- `eager`: plain matrix products over N×N with a mask; the reference that the others are tested against.
- `sdpa`: `scaled_dot_product_attention` over blocks. Windows are at most `max_turns` long, so a block of queries needs
  only its own block of keys and the few before it: the cost is linear in N and every shape is fixed, whatever the
  battles' lengths (nothing to recompile).
- `flash_attention_2`: the flash-attn package's variable-length kernel.
- `varlen_attn`: torch's own variable-length kernel (CUDA).
- `flex_attention`: torch's flex attention with a block mask (CUDA; on CPU it has no backward).
- Any other name is a variable-length flash kernel that transformers finds by it, as its `attn_implementation` does: one
  of the Hub, such as `kernels-community/flash-attn2`, or `flash_attention_3` where its package is installed.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

_FLASH: dict[str, Callable] = {}  # name → flash_attn_varlen_func, of the packages present and the kernels loaded
try:
    from flash_attn import flash_attn_varlen_func

    _FLASH["flash_attention_2"] = flash_attn_varlen_func
except ImportError:  # an optional package, of CUDA machines
    pass
varlen_attn = None
if torch.backends.cuda.is_built():  # it draws in all of torch's compiler, which a CPU's start need not wait for
    try:
        from torch.nn.attention.varlen import varlen_attn

        # The keyword for a causal mask changed between torch releases.
        _named = inspect.signature(varlen_attn).parameters
        _VARLEN_CAUSAL = {"window_size": (-1, 0)} if "window_size" in _named else {"is_causal": True}
    except ImportError:  # torch before 2.10
        pass

AMPERE = (8, 0)  # compute capability
BLOCK = 64
IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention_2", "varlen_attn", "flex_attention")


@dataclass
class PackedLayout:
    """Where the windows of a pack lie.

    segment: int [N], window number of each row (padding rows too: they form windows of their own).
    cu_seqlens: int32 [R+1], offsets of the windows, padded by repeating N.
    max_turns: longest window (a Python int: kernels want it on the host).
    mask, cu_seqlens_k: what the chosen implementation needs beyond that, made once per forward by `prepare`.
    """

    segment: torch.Tensor
    cu_seqlens: torch.Tensor
    max_turns: int
    implementation: str
    mask: Any = None
    cu_seqlens_k: torch.Tensor | None = None


def available_implementations(device: torch.device | str) -> list[str]:
    """Implementations that can run on `device` with the packages present, fastest first. Flash and flex kernels are
    for NVIDIA's GPUs from Ampere on; older ones (T4, V100) have none that multiplies bf16."""
    found = []
    if torch.device(device).type == "cuda" and torch.cuda.get_device_capability(device) >= AMPERE:
        if "flash_attention_2" in _FLASH:
            found.append("flash_attention_2")
        if varlen_attn is not None:
            found.append("varlen_attn")
        found.append("flex_attention")
    return [*found, "sdpa", "eager"]


def choose_implementation(name: str, device: torch.device | str, fp32: bool = False) -> str:
    """Resolve `auto` to the best implementation present, or check that the named one can run on `device`; a kernel of
    the Hub is loaded. fp32: the model computes in fp32, so attention must too.

    Raises ValueError naming what is present, or that the one named cannot compute in fp32.
    """
    present = available_implementations(device)
    if name == "auto":
        return "sdpa" if fp32 else present[0]
    if name in IMPLEMENTATIONS and name not in present:
        raise ValueError(
            f"model.attention={name!r} cannot run on {device}: present are {', '.join(present)}, or 'auto'"
        )
    try:
        load_implementation(name)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"model.attention={name!r}: {error}\nPresent on {device} are {', '.join(present)}, or 'auto'; a kernel of "
            "the Hub is named as in kernels-community/flash-attn2"
        ) from error
    if fp32 and is_varlen(name):
        raise ValueError(f"model.attention={name!r} computes in bf16, not fp32: choose 'auto', or another precision")
    return name


def load_implementation(name: str) -> str:
    """Have transformers load what is not of our own, before a compiler traces its call. Returns the name.

    Raises ImportError or ValueError where transformers knows no such kernel, or lacks the package that it comes in.
    """
    if name in _FLASH or name == "varlen_attn" or not is_varlen(name):
        return name
    from transformers.integrations.hub_kernels import is_kernel
    from transformers.modeling_flash_attention_utils import lazy_import_flash_attention

    if not (is_kernel(name) or name.startswith("flash_attention_")):
        raise ValueError(f"no attention has this name: choose one of {', '.join(IMPLEMENTATIONS)}")
    (_, varlen_kernel, *_), _ = lazy_import_flash_attention(name)
    if varlen_kernel is None:
        raise ValueError("it has no flash_attn_varlen_func, which packed battles want")
    _FLASH[name] = varlen_kernel
    return name


def is_varlen(implementation: str) -> bool:
    """Whether it is a kernel over variable lengths, which knows fp16 and bf16 alone."""
    return implementation not in ("eager", "sdpa", "flex_attention")


def prepare(segment: torch.Tensor, cu_seqlens: torch.Tensor, max_turns: int, implementation: str) -> PackedLayout:
    """Build the layout of a pack once, for all layers."""
    layout = PackedLayout(segment, cu_seqlens, max_turns, implementation)
    if implementation == "sdpa":
        layout.mask = _block_mask(segment, max_turns)
    elif implementation == "eager":
        n = segment.shape[0]
        causal = torch.ones(n, n, dtype=torch.bool, device=segment.device).tril()
        layout.mask = causal & (segment[:, None] == segment[None, :])
    elif implementation == "flex_attention":
        layout.mask = _flex_mask(segment)
    elif implementation in _FLASH:
        # The compiler breaks the graph at an `autograd.Function`, as flash-attn's is, that is given one tensor twice.
        layout.cu_seqlens_k = cu_seqlens.clone()
    return layout


def packed_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    """Causal attention inside each window of a pack.

    q, k, v: [N, H, d]. Returns [N, H, d] in the dtype of v.
    """
    out_dtype = v.dtype
    q, k, v = cast_for_kernel(q, k, v, layout.implementation)
    if layout.implementation == "sdpa":
        out = _blocked_sdpa(q, k, v, layout)
    elif layout.implementation == "eager":
        scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
        weights = scores.masked_fill(~layout.mask, torch.finfo(scores.dtype).min).softmax(-1)
        out = torch.einsum("hqk,khd->qhd", weights, v)
    elif layout.implementation == "varlen_attn":
        cu, longest = layout.cu_seqlens, layout.max_turns
        out = varlen_attn(q, k, v, cu, cu, longest, longest, **_VARLEN_CAUSAL)
    elif layout.implementation == "flex_attention":
        from torch.nn.attention.flex_attention import flex_attention

        batch_first = (t.transpose(0, 1).unsqueeze(0) for t in (q, k, v))
        out = flex_attention(*batch_first, block_mask=layout.mask).squeeze(0).transpose(0, 1)
    else:
        longest, flash = layout.max_turns, _FLASH[layout.implementation]
        out = flash(q, k, v, layout.cu_seqlens, layout.cu_seqlens_k, longest, longest, causal=True)
    return out.to(out_dtype)


def dense_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Attention over a dense axis (the words of a turn; the cached turns of a battle).

    q: [B, H, Q, d]; k, v: [B, H, L, d]; mask: bool, broadcastable to [B, H, Q, L], true where q may look.
    Returns [B, H, Q, d] in the dtype of v.
    """
    out_dtype = v.dtype
    q, k, v = cast_for_kernel(q, k, v, "sdpa")
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).to(out_dtype)


def cast_for_kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, implementation: str) -> tuple:
    """Give q, k, v one dtype that the kernel takes, whatever norms and masters left them in.

    Under autocast that is autocast's dtype; otherwise v's. The flash and varlen kernels know fp16 and bf16 alone, so
    for them fp32 becomes bf16.
    """
    device = q.device.type
    # The meta device, on which FLOPs are counted, knows no autocast.
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else v.dtype
    if is_varlen(implementation) and dtype not in (torch.float16, torch.bfloat16):
        dtype = torch.bfloat16
    return q.to(dtype), k.to(dtype), v.to(dtype)


def _block_mask(segment: torch.Tensor, max_turns: int) -> torch.Tensor:
    """Mask bool [blocks, 1, BLOCK, (back+1)·BLOCK]: same window and not later. Keys before the pack's start: false."""
    n = segment.shape[0]
    blocks, back = -(-n // BLOCK), -(-(max_turns - 1) // BLOCK)
    seg = F.pad(segment, (0, blocks * BLOCK - n), value=-1)
    queries = torch.arange(blocks * BLOCK, device=segment.device).view(blocks, BLOCK)
    first_key = (torch.arange(blocks, device=segment.device) - back) * BLOCK
    keys = first_key[:, None] + torch.arange((back + 1) * BLOCK, device=segment.device)
    key_seg = torch.where(keys >= 0, seg[keys.clamp_min(0)], -2)
    same = seg.view(blocks, BLOCK)[:, :, None] == key_seg[:, None, :]
    return (same & (keys[:, None, :] <= queries[:, :, None])).unsqueeze(1)


def _blocked_sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: PackedLayout) -> torch.Tensor:
    n, heads, width = q.shape
    blocks = layout.mask.shape[0]
    back = layout.mask.shape[-1] // BLOCK - 1
    pad = blocks * BLOCK - n

    def into_blocks(t: torch.Tensor) -> torch.Tensor:
        return F.pad(t, (0, 0, 0, 0, 0, pad)).view(blocks, BLOCK, heads, width)

    def with_blocks_before(t: torch.Tensor) -> torch.Tensor:
        t = into_blocks(t)
        before = [F.pad(t[: max(blocks - i, 0)], (0, 0, 0, 0, 0, 0, min(i, blocks), 0)) for i in range(back, 0, -1)]
        return torch.cat([*before, t], dim=1).transpose(1, 2)

    out = F.scaled_dot_product_attention(
        into_blocks(q).transpose(1, 2), with_blocks_before(k), with_blocks_before(v), attn_mask=layout.mask
    )
    return out.transpose(1, 2).reshape(blocks * BLOCK, heads, width)[:n]


def _flex_mask(segment: torch.Tensor):
    from torch.nn.attention.flex_attention import create_block_mask

    n = segment.shape[0]

    def same_window_and_not_later(b, h, q, k):
        return (segment[q] == segment[k]) & (k <= q)

    return create_block_mask(same_window_and_not_later, None, None, n, n, device=segment.device)
