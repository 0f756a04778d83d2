"""Attention in a differentiated evaluation: kernels without a backward pass are replaced by PyTorch's.

Kernels whose backward pass would save the whole matrix of attention scores are replaced too: PyTorch's saves none, and
is faster on every device.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from comfy.ldm.modules.attention import attention_pytorch, get_attn_precision
from torch import Tensor

from .replaced_attributes import ReplacedAttributes

Attention = Callable[..., Any]

FORWARD_ONLY_ATTENTION = ("attention_sage", "attention3_sage", "attention_sage3", "attention_flash")
# Their forward pass never holds the full matrix of scores, or only parts of it; their backward pass needs all of it.
SAVES_SCORES = ("attention_basic", "attention_sub_quad", "attention_split")
# The names under which the host's networks call the kernel it chose at startup.
KERNEL_ALIASES = ("optimized_attention", "optimized_attention_masked")
HOST_KERNELS = "comfy.ldm.modules.attention"


def with_differentiable_attention(model_options: dict) -> dict:
    """Return model_options in which attention kernels without a backward pass are replaced by PyTorch's.

    An existing override is still called, with PyTorch's attention as the function to override. If its result has no
    gradient although the query has one, PyTorch's result is used instead.
    """
    options = model_options.get("transformer_options", {})
    existing = options.get("optimized_attention_override")

    def override(function: Attention, q: Tensor, *args: Any, **kwargs: Any) -> Any:
        if existing is None:
            return _differentiable_kernel(function, q, *args, **kwargs)(q, *args, **kwargs)
        out = existing(attention_pytorch, q, *args, **kwargs)
        return attention_pytorch(q, *args, **kwargs) if _lost_gradient(q, out) else out

    return {**model_options, "transformer_options": {**options, "optimized_attention_override": override}}


@contextlib.contextmanager
def differentiable_attention() -> Iterator[None]:
    """Do the same, inside the block, for networks that never look at the override.

    Not all of the host's networks pass on the options that hold it. In their modules the name of the attention function
    is rebound wherever the function needs replacing: it comes from another pack, or is on one of the lists above.
    """
    with ReplacedAttributes() as replaced:
        for name, module in list(sys.modules.items()):
            if not name.startswith("comfy.") or module is None:
                continue
            for alias in KERNEL_ALIASES:
                function = vars(module).get(alias)
                if callable(function) and _needs_replacing(function):
                    replaced.replace(module, alias, _checked(function))
        yield


def _needs_replacing(function: Attention) -> bool:
    name = getattr(function, "__name__", "")
    foreign = getattr(function, "__module__", "") != HOST_KERNELS
    return foreign or name in FORWARD_ONLY_ATTENTION or name in SAVES_SCORES


def _checked(function: Attention) -> Attention:
    """The function itself where an override decides, otherwise a kernel that can be differentiated."""

    def attention(q: Tensor, *args: Any, **kwargs: Any) -> Any:
        overridden = "optimized_attention_override" in (kwargs.get("transformer_options") or {})
        if overridden and hasattr(function, "__wrapped__"):  # the host's own functions apply the override themselves
            return function(q, *args, **kwargs)
        out = _differentiable_kernel(function, q, *args, **kwargs)(q, *args, **kwargs)
        return attention_pytorch(q, *args, **kwargs) if _lost_gradient(q, out) else out

    return attention


def _lost_gradient(q: Tensor, out: Any) -> bool:
    return q.requires_grad and isinstance(out, Tensor) and not out.requires_grad


def _differentiable_kernel(
    function: Attention, q: Tensor, k: Any, v: Any, heads: Any, mask: Any = None, attn_precision: Any = None, **_: Any
) -> Attention:
    """The kernel to call in place of one of the host's; takes the same arguments as the kernel."""
    name = getattr(function, "__name__", "")
    if name in FORWARD_ONLY_ATTENTION:
        return attention_pytorch
    # PyTorch's computes the scores in q's precision, too coarse for some models (SD 2) in half precision.
    upcasts = get_attn_precision(attn_precision, q.dtype) == torch.float32 and q.dtype != torch.float32
    return attention_pytorch if name in SAVES_SCORES and not upcasts else function
