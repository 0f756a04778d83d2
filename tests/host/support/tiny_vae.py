"""A small VAE in the host."""

import torch
import zoo


def tiny_vae(seed=0, dtype=torch.float32):
    """A VAE object as the host's loader makes it: its AutoencoderKL, small, with weights from inference mode."""
    import comfy.ldm.models.autoencoder
    import comfy.sd

    shape = dict(
        double_z=True,
        z_channels=4,
        resolution=64,
        in_channels=3,
        out_ch=3,
        ch=32,
        ch_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        attn_resolutions=[],
        dropout=0.0,
    )
    with torch.inference_mode():
        network = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=shape, embed_dim=4)
        zoo._randomise(network, seed)
        return comfy.sd.VAE(
            sd=network.state_dict(), config={"params": {"ddconfig": shape, "embed_dim": 4}}, dtype=dtype
        )
