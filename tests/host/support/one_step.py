"""One evaluation by the host's own CFG guider, inside its own sampling: the bridge's gradient, plain autograd's, and
finite differences. Conditionings, hooks, ControlNets, patches and wrappers all take part.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
import zoo

SHAPE = zoo.SHAPES["sd15"]
SIGMA = 2.0


def make_ordinary(module: torch.nn.Module) -> None:
    """Gives the module parameters that plain autograd accepts."""
    for layer in module.modules():
        for table in (layer._parameters, layer._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    fresh = tensor.clone()
                    table[name] = torch.nn.Parameter(fresh, False) if table is layer._parameters else fresh


class OneStep:
    """A SAMPLER of the host that evaluates the model at one state. mode: "bridge", "plain" or "value"."""

    def __init__(self, tools, mode: str, shape=SHAPE, offset: torch.Tensor | None = None, adapts: bool = False):
        self.tools, self.mode, self.shape, self.offset, self.adapts = tools, mode, shape, offset, adapts
        self.out = self.grad = None

    def sample(
        self, guider, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ):
        x, weight = state(self.shape)
        if self.mode == "value":
            with torch.inference_mode(False), torch.no_grad():
                self.out = guider(x + self.offset, sigmas[:1].clone(), **extra_args)
            return noise
        adapts = {"modified by an inplace operation": self.mode == "plain", "nference tensor": False}
        while self.grad is None:
            try:
                self._differentiate(guider, x, weight, sigmas[:1], extra_args, tuple(adapts.values()))
            except RuntimeError as error:  # as Differentiator does it
                (sign,) = (sign for sign in adapts if sign in str(error))
                if adapts[sign] or not self.adapts:
                    raise
                adapts[sign] = True
        return noise

    def _differentiate(self, guider, x, weight, sigma, extra_args, adapted):
        setup = self.tools.module("nodes.host.sampling.run_setup")
        autograd, conds = self.tools.autograd, guider.conds
        with ExitStack() as stack:
            if self.mode == "bridge":
                stack.enter_context(
                    autograd.differentiable(list(setup.differentiated_modules(guider)), setup.weight_groups(guider))
                )
            try:
                guider.conds = autograd.ordinary(conds)
                with autograd.grad_enabled(*adapted):
                    leaf = x.clone().requires_grad_(True)
                    out = guider(leaf, sigma.clone(), **extra_args)
                    (self.grad,) = torch.autograd.grad((out * weight).sum(), leaf)
                    self.out = out.detach()
            finally:
                guider.conds = conds


def state(shape=SHAPE):
    """(the state evaluated at, the weights of the output's sum whose gradient is taken)."""
    generator = torch.Generator().manual_seed(7)
    with torch.inference_mode(False):
        return torch.randn(shape, generator=generator) * SIGMA, torch.randn(shape, generator=generator)


def evaluate(
    tools,
    model,
    positive,
    negative=None,
    cfg: float = 1.0,
    mode: str = "bridge",
    shape=SHAPE,
    offset=None,
    adapts: bool = False,
):
    """(output, gradient or None). adapts: whether the bridge may find its ways round in-place writes and the like."""
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative if negative is not None else zoo.conditioning("sd15", 2))
    guider.set_cfg(cfg)
    step = OneStep(tools, mode, shape, offset, adapts)
    with torch.inference_mode():
        guider.sample(torch.zeros(shape), torch.zeros(shape), step, torch.tensor([SIGMA, 0.0]), seed=1)
    return step.out, step.grad


def difference_error(
    tools, grad, model, positive, negative=None, cfg: float = 1.0, shape=SHAPE, h: float = 1e-2
) -> float:
    """|grad - true gradient| / |grad| along one direction, by central differences of the host's own evaluation."""
    _, weight = state(shape)
    direction = torch.randn(shape, generator=torch.Generator().manual_seed(9))
    up, down = (
        evaluate(tools, model, positive, negative, cfg, "value", shape, s * h * direction)[0].double() for s in (1, -1)
    )
    return (abs((grad * direction).sum() - ((up - down) * weight).sum() / (2 * h)) / grad.norm()).item()
