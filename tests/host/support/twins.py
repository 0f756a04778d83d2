"""A model's gradient by the bridge, and by plain autograd on an ordinary copy of the same network."""

from __future__ import annotations

import copy

import torch


def hole(shape):
    """A mask of a state's shape as the host's sampling has it, 1 = repaint; nested latents packed."""
    if isinstance(shape[0], tuple):
        return pack_latents([hole(component) for component in shape])
    mask = torch.zeros((1,) + shape[1:])
    mask[..., 4:12, 5:11] = 1
    return mask


def pack_latents(components):
    import comfy.utils

    return comfy.utils.pack_latents(components)[0]


def _state(shape, batch: int, generator) -> tuple[torch.Tensor, dict]:
    """(noise, what the host tells the model about its shape)."""
    shapes = [(batch, *component[1:]) for component in (shape if isinstance(shape[0], tuple) else [shape])]
    components = [torch.randn(component, generator=generator) for component in shapes]
    return (components[0], {}) if len(components) == 1 else (pack_latents(components), {"latent_shapes": shapes})


def arguments(model, shape, conditioning, batch: int = 2, sigma: float = 0.7, mask=None):
    """What the host's sampling passes to apply_model: (x, sigma, keyword arguments), all inference tensors."""
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        x, shapes = _state(shape, batch, generator)
        ((text, options),) = conditioning
        options = {"width": 128, "height": 128, **options, **shapes, "denoise_mask": mask}
        conds = model.extra_conds(cross_attn=text, noise=x, device=torch.device("cpu"), **options)
        conds = {k: c.process_cond(batch_size=batch, area=None).cond for k, c in conds.items()}
        conds["transformer_options"] = {"cond_or_uncond": [0]}
        return x, torch.full((batch,), sigma), conds


def ordinary_copy(model):
    """The same network with ordinary parameters that plain autograd accepts."""
    config = getattr(model, "model_config", None)  # answers every attribute, which copy takes for its protocol
    twin = copy.deepcopy(model, {id(config): config})
    for module in twin.modules():
        if isinstance(module, (torch.nn.LayerNorm, torch.nn.RMSNorm)):  # Flux adds its residuals in place
            module.register_forward_pre_hook(lambda _, args: (args[0].clone(),))
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    fresh = tensor.clone()
                    table[name] = torch.nn.Parameter(fresh, False) if table is module._parameters else fresh
    return twin


def gradient(autograd, model, x, sigma, conds, weight):
    """(output, gradient in x of its weighted sum), both through apply_model. The caller has prepared the model."""
    leaf = x.clone().requires_grad_(True)
    out = model.apply_model(leaf, autograd.ordinary(sigma), **autograd.ordinary(conds))
    return out.detach(), torch.autograd.grad((out * weight).sum(), leaf)[0]


def in_double(twin):
    """The ordinary copy with its layers in double precision, whatever the network casts their inputs to."""
    for module in twin.modules():
        if isinstance(getattr(module, "weight", None), torch.nn.Parameter) and module.weight.is_floating_point():
            module.double()
            module.register_forward_pre_hook(
                lambda _, args: tuple(
                    a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args
                )
            )
        if isinstance(getattr(module, "dtype", None), torch.dtype):
            module.dtype = torch.float64
    twin.get_dtype_inference = lambda: torch.float64
    return twin


def finite_difference_error(
    autograd, twin, grad, x, sigma, conds, weight, double: bool = True, step: float | None = None, directions: int = 2
) -> float:
    """Estimate of |grad - true gradient| / |grad| from central differences of the ordinary copy `twin`.

    A difference along a standard normal direction has that error's norm as its standard deviation.
    """
    if double:
        twin = in_double(twin)
    h = step or (1e-3 if double else 1e-2)
    dtype = torch.float64 if double else torch.float32
    x, sigma, conds = (
        x.to(dtype),
        sigma.to(dtype),
        {
            k: v.to(dtype) if isinstance(v, torch.Tensor) and v.is_floating_point() else v
            for k, v in autograd.ordinary(conds).items()
        },
    )
    generator = torch.Generator().manual_seed(7)
    squares = []
    with autograd.grad_enabled(), torch.no_grad():  # the same kernels as the gradient
        for _ in range(directions):
            direction = torch.randn(x.shape, generator=generator, dtype=dtype)
            up, down = (twin.apply_model(x + s * h * direction, sigma, **conds).double() for s in (1, -1))
            squares.append(((grad * direction).sum() - ((up - down) * weight).sum() / (2 * h)) ** 2)
    return (torch.stack(squares).mean().sqrt() / grad.norm()).item()


def relative_error(a, b) -> float:
    return ((a - b).norm() / b.norm()).item()
