"""Families of image models, part of `zoo_more.FAMILIES`."""

from __future__ import annotations

import torch
from zoo_settings import SQUARE, Family, chroma, flux, hunyuan_video, lumina, normal, ones, unet, z_image

IMAGES: dict[str, Family] = {
    "sd2_v": Family(
        "SD20",
        unet(),
        (1, 4, *SQUARE),
        state_dict=lambda: {
            # The host takes SD2 for v-prediction by the spread of this bias.
            "output_blocks.11.1.transformer_blocks.0.norm1.bias": torch.tensor([-1.0, 1.0])
        },
    ),
    "sdxl_refiner": Family(
        "SDXLRefiner", unet(num_classes="sequential", adm_in_channels=2560), (1, 4, *SQUARE), pooled=1280
    ),
    "sdxl_edm": Family(
        "SDXL",
        unet(num_classes="sequential", adm_in_channels=2816),
        (1, 4, *SQUARE),
        pooled=1280,
        state_dict=lambda: {"edm_mean": torch.zeros(4), "edm_std": torch.ones(4)},
    ),  # Playground 2.5
    "sd35": Family(
        "SD3",
        dict(
            in_channels=16,
            patch_size=2,
            depth=2,
            input_size=None,
            adm_in_channels=32,
            context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": 32, "out_features": 128}},
            num_patches=256,
            pos_embed_max_size=16,
            pos_embed_scaling_factor=None,
            qk_norm="rms",
            x_block_self_attn_layers=[0],
        ),
        (1, 16, *SQUARE),
    ),
    "flux2": Family(
        "Flux2",
        flux(
            image_model="flux2",
            in_channels=128,
            out_channels=128,
            patch_size=1,
            mlp_ratio=3.0,
            axes_dim=[16, 16, 16, 16],
            theta=2000,
            global_modulation=True,
            mlp_silu_act=True,
            qkv_bias=False,
            ops_bias=False,
            default_ref_method="index",
            ref_index_scale=10.0,
            txt_ids_dims=[3],
            guidance_embed=True,
        ),
        (1, 128, *SQUARE),
    ),
    "chroma": Family("Chroma", chroma(image_model="chroma"), (1, 16, *SQUARE)),
    "chroma_radiance": Family(
        "ChromaRadiance",
        {
            **chroma(image_model="chroma_radiance"),
            **dict(
                in_channels=3,
                out_channels=3,
                patch_size=4,
                nerf_hidden_size=16,
                nerf_mlp_ratio=4,
                nerf_depth=2,
                nerf_max_freqs=4,
                nerf_tile_size=512,
                nerf_final_head_type="conv",
                nerf_embedder_dtype=torch.float32,
                use_x0=False,
                use_sequential_txt_ids=False,
            ),
        },
        (1, 3, *SQUARE),
    ),
    "lumina2": Family("Lumina2", lumina(), (1, 16, *SQUARE)),
    "z_image": Family("ZImage", z_image(), (1, 16, *SQUARE)),
    "z_image_pixel": Family(
        "ZImagePixelSpace",
        z_image(image_model="zimage_pixel")
        | dict(
            patch_size=4,
            in_channels=3,
            decoder_in_channels=48,
            decoder_hidden_size=64,
            decoder_num_res_blocks=2,
            decoder_max_freqs=4,
        ),
        (1, 3, *SQUARE),
    ),
    "qwen_image": Family(
        "QwenImage",
        dict(
            image_model="qwen_image",
            in_channels=64,
            num_layers=2,
            attention_head_dim=64,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(16, 24, 24),
        ),
        (1, 16, 1, *SQUARE),
    ),
    "hidream": Family(
        "HiDream",
        dict(
            image_model="hidream",
            attention_head_dim=64,
            axes_dims_rope=[32, 16, 16],
            caption_channels=[32, 32],
            max_resolution=[128, 128],
            in_channels=16,
            llama_layers=[0, 1],
            num_attention_heads=2,
            num_routed_experts=4,
            num_activated_experts=2,
            num_layers=1,
            num_single_layers=1,
            out_channels=16,
            patch_size=2,
            text_emb_dim=32,
        ),
        (1, 16, *SQUARE),
        extra={"conditioning_llama3": normal(1, 2, 7, 32)},
    ),
    "auraflow": Family(
        "AuraFlow",
        dict(max_seq=256, cond_seq_dim=32, n_double_layers=1, n_layers=2, dim=128, n_heads=2, global_conddim=128),
        (1, 4, *SQUARE),
    ),
    "pixart_alpha": Family(
        "PixArtAlpha",
        dict(
            image_model="pixart_alpha",
            num_heads=2,
            patch_size=2,
            hidden_size=96,
            in_channels=4,
            depth=2,
            model_max_length=7,
            input_size=16,
            pe_interpolation=1,
            micro_condition=True,
            caption_channels=32,
        ),
        (1, 4, 34, 34),
        extra={"width": lambda g: 128, "height": lambda g: 128},
    ),
    "pixart_sigma": Family(
        "PixArtSigma",
        dict(
            image_model="pixart_sigma",
            num_heads=2,
            patch_size=2,
            hidden_size=96,
            in_channels=4,
            depth=2,
            model_max_length=7,
            input_size=16,
            pe_interpolation=1,
            micro_condition=False,
            caption_channels=32,
        ),
        (1, 4, 34, 34),
    ),
    "hunyuan_dit": Family(
        "HunyuanDiT",
        dict(image_model="hydit", depth=4, hidden_size=128, num_heads=2, text_states_dim=32, text_states_dim_t5=32),
        (1, 4, *SQUARE),
        text=(1, 77, 32),
        extra={
            "conditioning_mt5xl": normal(1, 256, 32),
            "attention_mask": ones(1, 77),
            "attention_mask_mt5xl": ones(1, 256),
        },
    ),
    "hunyuan_image": Family(
        "HunyuanImage21",
        hunyuan_video(patch_size=[1, 1], axes_dim=[32, 32], vec_in_dim=None, in_channels=64, out_channels=64),
        (1, 64, *SQUARE),
    ),
}
