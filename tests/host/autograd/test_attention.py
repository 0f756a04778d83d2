"""Which attention kernels are replaced in a differentiated evaluation."""

import pytest
import torch


def override(tools):
    options = tools.attention.with_differentiable_attention({"transformer_options": {}})
    return options["transformer_options"]["optimized_attention_override"]


@pytest.mark.parametrize("kernel", ["attention_basic", "attention_sub_quad", "attention_split"])
@pytest.mark.parametrize("tokens", [9, 7])
def test_kernels_that_save_the_scores_are_replaced(tools, kernel, tokens):
    import comfy.ldm.modules.attention as attention

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 16, generator=generator, requires_grad=True) for n in (9, tokens, tokens))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        out = override(tools)(getattr(attention, kernel), q, k, v, heads=2, attn_precision=None)
    assert torch.allclose(out, getattr(attention, kernel)(q, k, v, heads=2), atol=1e-5)
    assert saved and not any(shape[-2:] == (9, tokens) for shape in saved)


def test_scores_stay_in_single_precision_where_the_model_asks_for_it(tools):
    calls = []

    def attention_sub_quad(q, *args, **kwargs):
        calls.append(kwargs["attn_precision"])
        return q

    q = torch.randn(1, 4, 8)
    override(tools)(attention_sub_quad, q.half(), q.half(), q.half(), 2, attn_precision=torch.float32)
    assert calls == [torch.float32]
    override(tools)(attention_sub_quad, q, q, q, 2, attn_precision=torch.float32)  # q already has that precision
    assert calls == [torch.float32]


def test_unknown_kernels_are_left_alone(tools):
    q = torch.randn(1, 4, 8)
    assert override(tools)(lambda q, *args, **kwargs: q + 1, q, q, q, 2).equal(q + 1)
