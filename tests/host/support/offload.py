"""The host's offloading on a CPU: its own code, told that weights live on another device and that copying them to the
compute device goes through streams, whose buffers it uses again and again. A buffer that has been released is filled
with NaN, so that whatever reads it afterwards shows.
"""

from __future__ import annotations

import contextlib

import torch

ELSEWHERE = torch.device("meta")  # only ever compared with the compute device


class Elsewhere(torch.nn.Parameter):
    """A parameter that says it lives on another device. Its memory is the CPU's, so copying from it works."""

    @property
    def device(self):
        return ELSEWHERE


class Stream:
    """Stands for a CUDA stream."""

    def as_context(self, stream):
        return contextlib.nullcontext()

    def wait_stream(self, other):
        """The host's release: what comes next on this stream may overwrite the buffer."""
        import comfy.model_management

        buffer = comfy.model_management.STREAM_CAST_BUFFERS.get(self)
        if buffer is not None:
            with torch.inference_mode():
                buffer.fill_(-1)  # all bits set: NaN in every floating point type

    def synchronize(self):
        """Nothing runs behind our back here."""


class Offload:
    """How often weights were copied into a buffer, and how often one was given back."""

    def __init__(self):
        self.taken, self.released = 0, 0


@contextlib.contextmanager
def offloading(monkeypatch, share: float = 0.0):
    """While inside, models load with at most `share` of their weights resident; the rest streams through buffers."""
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.ops

    state = Offload()
    patcher_class = comfy.model_patcher.ModelPatcher
    load, cast, uncast = patcher_class.load, comfy.ops.cast_bias_weight, comfy.ops.uncast_bias_weight
    changed: list[tuple[torch.nn.Module, str, torch.nn.Parameter]] = []

    def partial_load(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False):
        load(self, device_to, max(share * self.model_size(), 0.1), force_patch_weights, False)
        for module in self.model.modules():
            if not hasattr(module, "prev_comfy_cast_weights"):
                continue
            for name, p in list(module._parameters.items()):
                if p is not None and type(p) is torch.nn.Parameter:
                    with torch.inference_mode():
                        module._parameters[name] = Elsewhere(p.data, requires_grad=False)
                    changed.append((module, name, p))

    def counted_cast(*args, **kwargs):
        weights = cast(*args, **kwargs)
        state.taken += len(weights) == 3 and weights[2][0] is not None
        return weights

    def counted_uncast(module, weight, bias, stream):
        uncast(module, weight, bias, stream)
        state.released += stream is not None and stream[0] is not None

    cpu = torch.device("cpu")
    with monkeypatch.context() as patch:
        patch.setattr(patcher_class, "load", partial_load)
        patch.setattr(management, "NUM_STREAMS", 2)
        patch.setattr(management, "STREAMS", {cpu: [Stream(), Stream()]})
        patch.setattr(management, "STREAM_CAST_BUFFERS", {})
        patch.setattr(comfy.ops, "cast_bias_weight", counted_cast)
        patch.setattr(comfy.ops, "uncast_bias_weight", counted_uncast)
        yield state
    for module, name, p in changed:
        module._parameters[name] = p
