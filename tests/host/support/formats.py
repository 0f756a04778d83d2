"""A tiny SD1.5 whose weights come in each of the host's formats, and the dense float32 weights each amounts to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import zoo


@dataclass(frozen=True)
class Format:
    """storage: the dtype weights are kept in; compute: what they are cast to (None: not); quant: the host's name."""

    storage: torch.dtype
    compute: torch.dtype | None = None
    quant: str | None = None
    tolerance: float = 1e-5  # of the gradient; above float32's where the arithmetic is not float32
    options: Mapping = field(default_factory=dict)  # of the quantisation
    fast: bool = False  # products in fp8 (--fast fp8_matrix_mult)


FORMATS = {
    "fp16": Format(torch.float16, tolerance=1e-2),
    "bf16": Format(torch.bfloat16, tolerance=5e-2),
    "fp16_in_fp32": Format(torch.float16, torch.float32),
    "bf16_in_fp32": Format(torch.bfloat16, torch.float32),
    "e4m3fn_in_fp32": Format(torch.float8_e4m3fn, torch.float32),
    "e5m2_in_fp32": Format(torch.float8_e5m2, torch.float32),
    "e4m3fn_in_bf16": Format(torch.float8_e4m3fn, torch.bfloat16, tolerance=5e-2),
    "scaled_e4m3fn": Format(torch.float32, torch.float32, "float8_e4m3fn"),
    "scaled_e5m2": Format(torch.float32, torch.float32, "float8_e5m2"),
    "nvfp4": Format(torch.float32, torch.float32, "nvfp4"),
    "mxfp8": Format(torch.float32, torch.float32, "mxfp8"),
    "fast_e4m3fn": Format(torch.float8_e4m3fn, torch.bfloat16, tolerance=0.2, fast=True),
    # These round the layer's input too; the gradient is taken straight through that.
    "int8": Format(torch.float32, torch.float32, "int8_tensorwise", 1e-2),
    "int8_rotated": Format(
        torch.float32,
        torch.float32,
        "int8_tensorwise",
        3e-2,
        dict(per_channel=True, convrot=True, convrot_groupsize=16),
    ),
    "int4_rotated": Format(
        torch.float32, torch.float32, "convrot_w4a4", 3e-2, dict(convrot_groupsize=16, linear_dtype="int8")
    ),
}


def quantized(weight: torch.Tensor, form: Format):
    import comfy.quant_ops

    layout = comfy.quant_ops.QUANT_ALGOS[form.quant]["comfy_tensor_layout"]
    options = {"scale": "recalculate"} if form.quant.startswith("float8") else form.options
    return comfy.quant_ops.QuantizedTensor.from_float(weight, layout, **options)


def build(form: Format, seed: int = 0):
    """(MODEL in that format, the float32 MODEL whose weights are what the first one's stand for)."""
    import comfy.model_patcher
    import comfy.ops
    import comfy.supported_models

    with torch.inference_mode():
        dense = zoo.sd15(seed)
        if form.quant is None:
            model = zoo.sd15(seed, form.storage, form.compute, operations=comfy.ops.fp8_ops if form.fast else None)
            for p, q in zip(dense.model.diffusion_model.parameters(), model.model.diffusion_model.parameters()):
                p.copy_(q.to(torch.float32))
            return model, dense
        config = comfy.supported_models.SD15(zoo._unet_config())
        config.quant_config = {"mixed_ops": True}
        config.set_inference_dtype(form.storage, form.compute)
        model = config.get_model({})
        state = {}
        for name, value in dense.model.diffusion_model.state_dict().items():
            if value.ndim == 2 and name.startswith(("input_blocks", "middle", "output")) and value.shape[1] % 64 == 0:
                packed = quantized(value, form)
                value.copy_(packed.dequantize())  # the twin's
                state.update(packed.state_dict(name))
                conf = json.dumps({"format": form.quant, **form.options}).encode()
                state[name.removesuffix("weight") + "comfy_quant"] = torch.tensor(list(conf), dtype=torch.uint8)
            else:
                state[name] = value
        missing, unexpected = model.diffusion_model.load_state_dict({k: v.clone() for k, v in state.items()})
        assert not missing and not unexpected
        model.eval()
        cpu = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu), dense
