"""A variable-length flash kernel in plain torch, called and differentiated as the real ones are: by an
`autograd.Function` over packed rows. It holds the whole matrix of scores, and notes the dtypes that it was given."""

import torch

met: set[torch.dtype] = set()  # dtypes of q, k and v, in calls that no compiler traced


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, cu_seqlens_q, cu_seqlens_k, causal):
        rows = torch.arange(q.shape[0], device=q.device)
        of_query = torch.searchsorted(cu_seqlens_q, rows, right=True)
        of_key = torch.searchsorted(cu_seqlens_k, rows, right=True)
        seen = of_query[:, None] == of_key
        if causal:
            seen = seen & (rows <= rows[:, None])
        scores = torch.einsum("qhd,khd->hqk", q.float(), k.float()) * q.shape[-1] ** -0.5
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        ctx.save_for_backward(q, k, v, weights)
        return torch.einsum("hqk,khd->qhd", weights, v.float()).to(v.dtype)

    @staticmethod
    def backward(ctx, out_gradient):
        q, k, v, weights = ctx.saved_tensors
        out_gradient, scale = out_gradient.float(), q.shape[-1] ** -0.5
        of_v = torch.einsum("hqk,qhd->khd", weights, out_gradient)
        of_weights = torch.einsum("qhd,khd->hqk", out_gradient, v.float())
        of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * scale
        of_q = torch.einsum("hqk,khd->qhd", of_scores, k.float())
        of_k = torch.einsum("hqk,qhd->khd", of_scores, q.float())
        return of_q.to(q.dtype), of_k.to(k.dtype), of_v.to(v.dtype), None, None, None


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal=False):
    """q, k, v [N, H, d]; cu_seqlens int32 [R+1]. Returns [N, H, d] in v's dtype."""
    if not torch.compiler.is_compiling():
        met.update(t.dtype for t in (q, k, v))
    return _Attention.apply(q, k, v, cu_seqlens_q, cu_seqlens_k, causal)
