"""Attention in a differentiated evaluation: kernels without a backward pass are replaced by PyTorch's."""
from __future__ import annotations

from comfy.ldm.modules.attention import attention_pytorch

# Attention kernels of the host that have no backward pass.
FORWARD_ONLY_ATTENTION = ("attention_sage", "attention3_sage", "attention_sage3", "attention_flash")


def with_differentiable_attention(model_options: dict) -> dict:
    """model_options in which attention kernels without a backward pass are replaced by PyTorch's.

    An override that somebody else has set is still called, with PyTorch's attention as the function to override; where
    its answer has no gradient though the query has one, PyTorch's is taken.
    """
    options = model_options.get("transformer_options", {})
    theirs = options.get("optimized_attention_override")

    def override(function, q, *args, **kwargs):
        kernel = attention_pytorch if function.__name__ in FORWARD_ONLY_ATTENTION else function
        if theirs is None:
            return kernel(q, *args, **kwargs)
        out = theirs(attention_pytorch, q, *args, **kwargs)
        return attention_pytorch(q, *args, **kwargs) if q.requires_grad and not out.requires_grad else out

    return {**model_options, "transformer_options": {**options, "optimized_attention_override": override}}
