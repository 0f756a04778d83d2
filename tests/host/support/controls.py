"""ControlNets of the tiny SD1.5: built by the host's classes from random weights."""

from __future__ import annotations

import torch
import zoo
from one_step import make_ordinary

CONFIG = {
    "num_res_blocks": [2, 2],
    "transformer_depth": [1] * 4,
    "transformer_depth_output": [1] * 6,
    "channel_mult": [1, 1],
}


def image(seed: int = 3) -> torch.Tensor:
    return torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(seed))


def _network(operations):
    import comfy.cldm.cldm

    config = zoo._unet_config(**CONFIG, num_heads=8)
    config.pop("out_channels")
    config.pop("transformer_depth_output")
    return comfy.cldm.cldm.ControlNet(**config, hint_channels=3, operations=operations, dtype=torch.float32)


def controlnet(seed: int = 21, ordinary: bool = False):
    import comfy.controlnet
    import comfy.ops

    with torch.inference_mode(not ordinary):
        network = _network(comfy.ops.disable_weight_init)
        with torch.no_grad():
            zoo._randomise(network, seed)
        if ordinary:
            make_ordinary(network)
        return comfy.controlnet.ControlNet(network.eval(), load_device=torch.device("cpu"))


def control_lora(seed: int = 22, ordinary: bool = False, rank: int = 2):
    """A Control-LoRA: the diffusion model's own weights, low-rank changes of some, and the hint's layers."""
    import comfy.controlnet
    import comfy.ops

    with torch.inference_mode(not ordinary):
        network = _network(comfy.ops.disable_weight_init)
        with torch.no_grad():
            zoo._randomise(network, seed)
        generator = torch.Generator().manual_seed(seed)
        weights = {"lora_controlnet": torch.empty(0)}
        for name, p in network.state_dict().items():
            if name.startswith(("input_hint_block", "zero_convs", "middle_block_out")):
                weights[name] = p.clone()
            elif p.ndim > 1 and name.startswith(("input_blocks", "middle_block")):
                key = name.removesuffix(".weight")
                weights[f"{key}.up"] = torch.randn(p.shape[0], rank, *[1] * (p.ndim - 2), generator=generator) * 0.3
                weights[f"{key}.down"] = torch.randn(rank, *p.shape[1:], generator=generator) * p[0].numel() ** -0.5
        return comfy.controlnet.ControlLora(weights)


def t2i_adapter(seed: int = 23, ordinary: bool = False):
    import comfy.controlnet
    import comfy.t2i_adapter.adapter

    with torch.inference_mode(not ordinary):
        network = comfy.t2i_adapter.adapter.Adapter(
            channels=[64, 64], nums_rb=1, cin=192, ksize=1, sk=True, use_conv=False, xl=False
        )
        with torch.no_grad():
            zoo._randomise(network, seed)
        if ordinary:
            make_ordinary(network)
        return comfy.controlnet.T2IAdapter(network.eval(), 3, 8, "nearest-exact")


def with_control(conditioning, *controls, strength: float = 0.8, percent=(0.0, 1.0)):
    """The conditioning as Apply ControlNet (one after the other) leaves it."""
    chain = None
    for control in controls:
        hint = control.copy().set_cond_hint(image(), strength, percent)
        hint.set_previous_controlnet(chain)
        chain = hint
    return [[text, {**options, "control": chain, "control_apply_to_uncond": False}] for text, options in conditioning]
