"""Operations of one forward pass, counted: diffusion networks beside the decoders of the loss at the border.

    python benchmarks/decoder_cost.py --out benchmarks/results/decoder_cost.md

Nothing is computed: networks of full size on PyTorch's meta device, at cfg 1. A guided step evaluates and
differentiates both, so the ratio is what the decoder adds to a guided step's operations. Needs ComfyUI (`COMFYUI_PATH`,
or `~/ComfyUI`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "host" / "support"), str(ROOT / "benchmarks")]

import in_host  # noqa: E402
from full_size import SETTINGS, TEXT  # noqa: E402

HOST = in_host.find_host()
sys.path.insert(0, str(HOST))
import comfy.cli_args  # noqa: E402

comfy.cli_args.args.use_pytorch_cross_attention = True  # the host's own for CPUs asks the device for its free memory
in_host.import_host(HOST)

import comfy.ldm.models.autoencoder  # noqa: E402
import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.taesd.taesd  # noqa: E402

KL = dict(
    double_z=True,
    z_channels=4,
    resolution=256,
    in_channels=3,
    out_ch=3,
    ch=128,
    ch_mult=[1, 2, 4, 4],
    num_res_blocks=2,
    attn_resolutions=[],
    dropout=0.0,
)


def counted(function, *args, **kwargs) -> float:
    """Teraoperations (a product and a sum are two)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(*args, **kwargs)
    return counter.get_total_flops() / 1e12


def unet(name: str, cells: int) -> float:
    _, settings = SETTINGS[name]
    network = openaimodel.UNetModel(
        **settings, device="meta", dtype=torch.float32, operations=comfy.ops.disable_weight_init
    )
    tokens, width, _ = TEXT[name]
    empty = lambda *shape: torch.empty(shape, device="meta")
    adm = settings["adm_in_channels"]
    return counted(
        network, empty(1, 4, cells, cells), empty(1), empty(1, tokens, width), y=None if adm is None else empty(1, adm)
    )


def decoders(cells: int) -> dict[str, float]:
    z = torch.empty((1, 4, cells, cells), device="meta")
    with torch.device("meta"):
        tiny = comfy.taesd.taesd.TAESD(latent_channels=4)
        full = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=KL, embed_dim=4)
    return {"tiny": counted(tiny.decode, z), "vae": counted(full.decode, z)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="Markdown file")
    args = parser.parse_args()
    lines = [
        "| network | pixels | TFLOP, network | tiny (TAESD) | vae (AutoencoderKL) | tiny / network | vae / network |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, size in (("sd15", 512), ("sd15", 1024), ("sdxl", 1024)):
        one, others = unet(name, size // 8), decoders(size // 8)
        tiny, full = others["tiny"], others["vae"]
        lines.append(f"| {name} | {size} | {one:.2f} | {tiny:.2f} | {full:.2f} | {tiny / one:.2f} | {full / one:.2f} |")
    text = "\n".join(lines) + f"\n\nCommand: `python {' '.join([Path(sys.argv[0]).as_posix(), *sys.argv[1:]])}`.\n"
    print(text)
    if args.out is not None:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
