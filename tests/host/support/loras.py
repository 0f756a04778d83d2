"""LoRA files for the tiny SD1.5, and the weights that they amount to, computed without the host."""

from __future__ import annotations

import torch

RANK, ALPHA = 4, 2.0


def lora(model, seed: int = 11, size: float = 1.0) -> dict[str, torch.Tensor]:
    """Low-rank changes of every matrix and convolution in the transformer blocks, and changes of norms and biases."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, p in model.model.diffusion_model.named_parameters():
        key, _, kind = f"diffusion_model.{name}".rpartition(".")
        if ".1." not in key:  # the spatial transformers
            continue
        if p.ndim > 1:
            up = torch.randn(p.shape[0], RANK, *[1] * (p.ndim - 2), generator=generator) * size
            state[f"{key}.lora_up.weight"] = up
            down = torch.randn(RANK, *p.shape[1:], generator=generator) * (p[0].numel() * RANK) ** -0.5
            state[f"{key}.lora_down.weight"] = down
            state[f"{key}.alpha"] = torch.tensor(ALPHA)
        elif "norm" in key or key.endswith("to_out.0"):
            state[f"{key}.{'diff' if kind == 'weight' else 'diff_b'}"] = torch.randn(p.shape, generator=generator) * 0.1
    return state


def merge(model, state: dict, strength: float) -> None:
    """Adds the LoRA to a dense float32 model's weights."""
    with torch.inference_mode():
        for name, p in model.model.diffusion_model.named_parameters():
            key, _, kind = f"diffusion_model.{name}".rpartition(".")
            change = state.get(f"{key}.{'diff' if kind == 'weight' else 'diff_b'}")
            if change is None and kind == "weight" and f"{key}.lora_up.weight" in state:
                up, down = state[f"{key}.lora_up.weight"], state[f"{key}.lora_down.weight"]
                change = (up.flatten(1) @ down.flatten(1)).reshape(p.shape) * ALPHA / RANK
            if change is not None:
                p.add_(change * strength)


def loaded(model, state: dict, strength: float):
    """A clone of `model` with the LoRA, by the host's own loader."""
    import comfy.sd

    with torch.inference_mode():
        return comfy.sd.load_lora_for_models(model, None, state, strength, 0.0)[0]
