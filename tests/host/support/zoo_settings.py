"""Settings of tiny models: what the host's detection would find in a checkpoint, smaller."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import zoo

TEXT = (1, 7, 32)


@dataclass(frozen=True)
class Family:
    """Settings are what the host's detection would find in a checkpoint, smaller."""

    config: str  # class in comfy.supported_models
    settings: Mapping
    shape: tuple  # of a latent, or of an image for pixel-space models; of a nested latent a tuple of shapes
    text: tuple[int, ...] = TEXT
    pooled: int = 32
    extra: Mapping[str, Callable] = field(default_factory=dict)  # further conditioning: name -> (generator -> value)
    state_dict: Callable = dict  # what the config class looks up to tell variants apart

    @property
    def batch(self) -> int:
        return self.shape[0][0] if isinstance(self.shape[0], tuple) else self.shape[0]


def unet(**changes) -> dict:
    return zoo._unet_config(**{"use_linear_in_transformer": True, **changes})


def normal(*shape) -> Callable:
    return lambda generator: torch.randn(shape, generator=generator)


def ones(*shape, dtype=torch.long) -> Callable:
    return lambda generator: torch.ones(shape, dtype=dtype)


def flux(**changes) -> dict:
    settings = dict(
        in_channels=16,
        out_channels=16,
        patch_size=2,
        vec_in_dim=None,
        context_in_dim=32,
        hidden_size=128,
        mlp_ratio=4.0,
        num_heads=2,
        depth=2,
        depth_single_blocks=2,
        axes_dim=[16, 24, 24],
        theta=10000,
        qkv_bias=True,
        txt_ids_dims=[],
    )
    return {**settings, **changes}


def chroma(**changes) -> dict:
    return flux(in_channels=64, out_channels=64, in_dim=64, out_dim=128, hidden_dim=64, n_layers=2, **changes)


def lumina(**changes) -> dict:
    settings = dict(
        image_model="lumina2",
        patch_size=2,
        in_channels=16,
        dim=96,
        cap_feat_dim=32,
        n_layers=2,
        n_refiner_layers=1,
        qk_norm=True,
        n_heads=2,
        n_kv_heads=1,
        axes_dims=[16, 16, 16],
        axes_lens=[300, 512, 512],
        rope_theta=10000.0,
        ffn_dim_multiplier=1.0,
    )
    return {**settings, **changes}


def z_image(**changes) -> dict:
    return lumina(
        dim=256,
        n_heads=4,
        n_kv_heads=4,
        axes_dims=[16, 24, 24],
        rope_theta=256.0,
        z_image_modulation=True,
        time_scale=1000.0,
        pad_tokens_multiple=32,
        **changes,
    )


def cosmos(**changes) -> dict:
    settings = dict(
        max_img_h=240,
        max_img_w=240,
        max_frames=128,
        in_channels=16,
        out_channels=16,
        patch_spatial=2,
        patch_temporal=1,
        model_channels=96,
        num_blocks=2,
        num_heads=2,
        concat_padding_mask=True,
        crossattn_emb_channels=32,
        pos_emb_cls="rope3d",
        pos_emb_interpolation="crop",
        use_adaln_lora=True,
        adaln_lora_dim=32,
    )
    return {**settings, **changes}


def hunyuan_video(**changes) -> dict:
    settings = dict(
        image_model="hunyuan_video",
        in_channels=16,
        out_channels=16,
        patch_size=[1, 2, 2],
        vec_in_dim=32,
        axes_dim=[16, 24, 24],
        context_in_dim=32,
        hidden_size=128,
        mlp_ratio=4.0,
        num_heads=2,
        depth=1,
        depth_single_blocks=2,
        theta=256,
        qkv_bias=True,
        byt5=False,
        guidance_embed=True,
        meanflow=False,
        use_cond_type_embedding=False,
        vision_in_dim=None,
        meanflow_sum=False,
    )
    return {**settings, **changes}


def kandinsky(**changes) -> dict:
    settings = dict(
        image_model="kandinsky5",
        model_dim=96,
        axes_dims=(16, 16, 16),
        time_dim=64,
        ff_dim=192,
        in_text_dim=32,
        in_text_dim2=32,
        num_text_blocks=1,
        num_visual_blocks=2,
    )
    return {**settings, **changes}


def wan(**changes) -> dict:
    settings = dict(
        image_model="wan2.1",
        model_type="t2v",
        dim=96,
        in_dim=16,
        out_dim=16,
        num_heads=2,
        ffn_dim=192,
        num_layers=2,
        patch_size=(1, 2, 2),
        freq_dim=64,
        text_dim=32,
    )
    return {**settings, **changes}


SQUARE, VIDEO = (16, 16), (2, 16, 16)
