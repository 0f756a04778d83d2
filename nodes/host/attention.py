"""Attention in a differentiated evaluation: kernels without a backward pass are replaced by PyTorch's.

So are those that would save the whole matrix of scores for it: PyTorch's saves none, and is faster on every device.
"""
from __future__ import annotations

import torch
from comfy.ldm.modules.attention import attention_pytorch, get_attn_precision

# Attention kernels of the host that have no backward pass.
FORWARD_ONLY_ATTENTION = ("attention_sage", "attention3_sage", "attention_sage3", "attention_flash")
# Kernels whose backward pass needs the matrix of scores, which their forward pass avoids holding or holds in parts.
SAVES_SCORES = ("attention_basic", "attention_sub_quad", "attention_split")


def with_differentiable_attention(model_options: dict) -> dict:
    """model_options in which attention kernels without a backward pass are replaced by PyTorch's.

    An override that somebody else has set is still called, with PyTorch's attention as the function to override; where
    its answer has no gradient though the query has one, PyTorch's is taken.
    """
    options = model_options.get("transformer_options", {})
    theirs = options.get("optimized_attention_override")

    def override(function, q, *args, **kwargs):
        if theirs is None:
            return _kernel(function, q, *args, **kwargs)(q, *args, **kwargs)
        out = theirs(attention_pytorch, q, *args, **kwargs)
        return attention_pytorch(q, *args, **kwargs) if q.requires_grad and not out.requires_grad else out

    return {**model_options, "transformer_options": {**options, "optimized_attention_override": override}}


def _kernel(function, q, k, v, heads, mask=None, attn_precision=None, **kwargs):
    """What is called in the place of one of the host's kernels."""
    name = getattr(function, "__name__", "")
    if name in FORWARD_ONLY_ATTENTION:
        return attention_pytorch
    # PyTorch's takes the scores in the precision of q, which is not enough for some models (SD 2) in half precision.
    upcasts = get_attn_precision(attn_precision, q.dtype) == torch.float32 and q.dtype != torch.float32
    return attention_pytorch if name in SAVES_SCORES and not upcasts else function
