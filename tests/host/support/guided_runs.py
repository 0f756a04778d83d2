"""Guided runs for tests: made, watched, and compared with a hand-made twin."""

from __future__ import annotations

import contextlib


def gradpaint(
    tools, model, records=None, every=1, between="plain", fraction=1.0, lambda_al=0.0, alignment=None, **changes
):
    settings = tools.settings.GuidanceSettings(
        alignment=alignment or tools.settings.AlignmentSettings(lambda_al=lambda_al),
        schedule=tools.settings.GuideSchedule(fraction=fraction, every=every, between=between),
        **changes,
    )
    return tools.guidance.apply_gradpaint(model, settings, None if records is None else records.append)


@contextlib.contextmanager
def gradients(tools):
    """(x0_hat's loss gradient) of each guided step inside the block."""
    plan, taken = tools.module("gradpaint.method.plan").RunPlan, []
    original = plan.take

    def spy(self, i, gradient, *others):
        taken.append(gradient.gradient.clone())
        original(self, i, gradient, *others)

    plan.take = spy
    try:
        yield taken
    finally:
        plan.take = original


@contextlib.contextmanager
def model_calls(model):
    """(batch, with graph) of each evaluation of the network inside the block."""
    calls = []

    def note(module, args, kwargs, out):
        calls.append((len(args[0]), bool(out.requires_grad)))

    handle = model.model.diffusion_model.register_forward_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


@contextlib.contextmanager
def detached_but(index):
    """The twin: every answer of calc_cond_batch is a constant but number index[0], [1], ... of its 1st, 2nd call."""
    import comfy.samplers

    original, calls = comfy.samplers.calc_cond_batch, []

    def twin(*args):
        wanted = index[len(calls)] if len(calls) < len(index) else None
        calls.append(1)
        return [out if i == wanted else out.detach() for i, out in enumerate(original(*args))]

    comfy.samplers.calc_cond_batch = twin
    try:
        yield
    finally:
        comfy.samplers.calc_cond_batch = original
