"""Attention in a differentiated evaluation: kernels without a backward pass are replaced by PyTorch's.

So are those that would save the whole matrix of scores for it: PyTorch's saves none, and is faster on every device.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

import torch
from comfy.ldm.modules.attention import attention_pytorch, get_attn_precision

# Attention kernels of the host that have no backward pass.
FORWARD_ONLY_ATTENTION = ("attention_sage", "attention3_sage", "attention_sage3", "attention_flash")
# Kernels whose backward pass needs the matrix of scores, which their forward pass avoids holding or holds in parts.
SAVES_SCORES = ("attention_basic", "attention_sub_quad", "attention_split")
# The names under which the host's networks call the kernel that was chosen at its start.
CHOSEN = ("optimized_attention", "optimized_attention_masked")
HOST_KERNELS = "comfy.ldm.modules.attention"


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
        return attention_pytorch(q, *args, **kwargs) if _cut(q, out) else out

    return {**model_options, "transformer_options": {**options, "optimized_attention_override": override}}


@contextlib.contextmanager
def differentiable_attention():
    """For the time of the block, the same for networks that ask for no override.

    Not every network of the host passes on the options in which an override is. Their modules' own name for the
    attention function is changed, where it is a function that needs it: one of another pack, or of the lists above.
    """
    changed: list[tuple[object, str, Callable]] = []
    try:
        for name, module in list(sys.modules.items()):
            if not name.startswith("comfy.") or module is None:
                continue
            for attribute in CHOSEN:
                function = vars(module).get(attribute)
                if callable(function) and _needs_change(function):
                    changed.append((module, attribute, function))
                    setattr(module, attribute, _checked(function))
        yield
    finally:
        for module, attribute, function in changed:
            setattr(module, attribute, function)


def _needs_change(function: Callable) -> bool:
    name = getattr(function, "__name__", "")
    foreign = getattr(function, "__module__", "") != HOST_KERNELS
    return foreign or name in FORWARD_ONLY_ATTENTION or name in SAVES_SCORES


def _checked(function: Callable) -> Callable:
    """The function itself where an override decides, else the kernel that is right for a differentiated call."""

    def attention(q, *args, **kwargs):
        overridden = "optimized_attention_override" in (kwargs.get("transformer_options") or {})
        if overridden and hasattr(function, "__wrapped__"):  # the host's own look for the override themselves
            return function(q, *args, **kwargs)
        out = _kernel(function, q, *args, **kwargs)(q, *args, **kwargs)
        return attention_pytorch(q, *args, **kwargs) if _cut(q, out) else out

    return attention


def _cut(q, out) -> bool:
    return q.requires_grad and isinstance(out, torch.Tensor) and not out.requires_grad


def _kernel(function, q, k, v, heads, mask=None, attn_precision=None, **kwargs):
    """What is called in the place of one of the host's kernels."""
    name = getattr(function, "__name__", "")
    if name in FORWARD_ONLY_ATTENTION:
        return attention_pytorch
    # PyTorch's takes the scores in the precision of q, which is not enough for some models (SD 2) in half precision.
    upcasts = get_attn_precision(attn_precision, q.dtype) == torch.float32 and q.dtype != torch.float32
    return attention_pytorch if name in SAVES_SCORES and not upcasts else function
