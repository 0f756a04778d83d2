"""Pictures, masks and small VAEs for the encode and composite nodes."""

import torch


def picture(batch, height, width, channels=3, seed=0):
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(seed))


def box(height, width, top, bottom, left, right, value=1.0):
    mask = torch.zeros(1, height, width)
    mask[:, top:bottom, left:right] = value
    return mask


def built(network, metadata=None):
    """The host's VAE around the state dict of a small network with random weights."""
    from comfy.sd import VAE

    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(p.shape, generator=generator) * 0.05 for name, p in network.state_dict().items()}
    return VAE(sd=state, metadata=metadata)


def as_the_host_fits_it(latent):
    import comfy.sampler_helpers

    return comfy.sampler_helpers.prepare_mask(latent["noise_mask"], latent["samples"].shape, "cpu")


def small_vaes() -> dict:
    """The host's VAEs by name: of pixels, of images, of videos and, where the host has it, of Flux 2."""
    from comfy.ldm.wan.vae import WanVAE
    from comfy.sd import VAE
    from comfy.taesd import taesd
    from comfy.taesd.taesd import TAESD

    with torch.inference_mode():
        wan = WanVAE(
            dim=8,
            z_dim=16,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=2,
            attn_scales=[],
            temperal_downsample=[False, True, True],
            dropout=0.0,
        )
        made = {
            "pixel_space": VAE(sd={"pixel_space_vae": torch.tensor(1.0)}),
            "taesd": built(TAESD()),
            "wan": built(wan),
        }
        if hasattr(taesd, "EncoderFlux2"):  # not in the oldest hosts
            made["taef2"] = built(TAESD(latent_channels=128), {"tae_latent_channels": 128})
        return made
