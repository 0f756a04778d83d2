"""Relatives of the families in `zoo_more`: other config classes of the host, many with a picture as condition."""

from __future__ import annotations

import torch
from zoo_settings import SQUARE, VIDEO, Family, cosmos, flux, hunyuan_video, normal, ones, unet, wan


def _video_unet(**changes) -> dict:
    return unet(
        use_temporal_attention=True,
        use_temporal_resblock=True,
        video_kernel_size=[3, 1, 1],
        in_channels=8,
        extra_ff_mix_layer=True,
        use_spatial_context=True,
        merge_strategy="learned_with_images",
        merge_factor=0.0,
        num_classes="sequential",
        **changes,
    )


def _cogvideox(**changes) -> dict:
    settings = dict(
        image_model="cogvideox",
        num_attention_heads=2,
        attention_head_dim=32,
        time_embed_dim=64,
        num_layers=2,
        in_channels=32,
        patch_size=2,
        text_embed_dim=32,
        use_learned_positional_embeddings=False,
        use_rotary_positional_embeddings=True,
    )
    return {**settings, **changes}


def _cascade(**changes) -> dict:
    settings = dict(
        stable_cascade_stage="b",
        c_cond=64,
        c_hidden=[64, 64],
        nhead=[-1, 2],
        blocks=[[1, 1], [1, 1]],
        block_repeat=[[1, 1], [1, 1]],
        level_config=["CT", "CTA"],
        kernel_size=3,
        dropout=[0.0, 0.0],
        self_attn=True,
        c_effnet=16,
        c_pixels=3,
        c_r=64,
        c_clip=32,
    )
    return {**settings, **changes}


def _picture(channels: int, *size) -> dict:
    """A first frame as the host's image-to-video nodes hand it over."""
    return {"concat_latent_image": normal(1, channels, *size), "concat_mask": ones(1, 1, *size, dtype=torch.float32)}


VARIANTS: dict[str, Family] = {
    "sd15_instructpix2pix": Family(
        "SD15_instructpix2pix", unet(in_channels=8, use_linear_in_transformer=False), (1, 4, *SQUARE)
    ),
    "sdxl_instructpix2pix": Family(
        "SDXL_instructpix2pix",
        unet(in_channels=8, num_classes="sequential", adm_in_channels=2816),
        (1, 4, *SQUARE),
        pooled=1280,
    ),
    "sd21_unclip_l": Family("SD21UnclipL", unet(num_classes="sequential", adm_in_channels=1536), (1, 4, *SQUARE)),
    "sd21_unclip_h": Family("SD21UnclipH", unet(num_classes="sequential", adm_in_channels=2048), (1, 4, *SQUARE)),
    "lotus": Family("LotusD", unet(num_classes="sequential", adm_in_channels=4), (1, 4, *SQUARE)),
    "zero123": Family(
        "Stable_Zero123",
        unet(in_channels=8, use_linear_in_transformer=False),
        (1, 4, *SQUARE),
        state_dict=lambda: {
            "cc_projection.weight": torch.randn(32, 32) * 32**-0.5,
            "cc_projection.bias": torch.zeros(32),
        },
    ),
    "sd_x4_upscaler": Family(
        "SD_X4Upscaler",
        unet(in_channels=7, num_classes=1000, disable_self_attentions=[True, False]),
        (1, 4, *SQUARE),
        extra={"seed": lambda g: 3},
    ),
    "ssd_1b": Family("SSD1B", unet(num_classes="sequential", adm_in_channels=2816), (1, 4, *SQUARE), pooled=1280),
    "koala_700m": Family(
        "KOALA_700M", unet(num_classes="sequential", adm_in_channels=2816), (1, 4, *SQUARE), pooled=1280
    ),
    "koala_1b": Family("KOALA_1B", unet(num_classes="sequential", adm_in_channels=2816), (1, 4, *SQUARE), pooled=1280),
    "segmind_vega": Family(
        "Segmind_Vega", unet(num_classes="sequential", adm_in_channels=2816), (1, 4, *SQUARE), pooled=1280
    ),
    "cascade_b": Family("Stable_Cascade_B", _cascade(), (1, 4, *SQUARE)),
    "svd": Family("SVD_img2vid", _video_unet(adm_in_channels=768), (2, 4, *SQUARE), text=(1, 1, 32)),
    "sv3d_u": Family("SV3D_u", _video_unet(adm_in_channels=256), (2, 4, *SQUARE), text=(1, 1, 32)),
    "sv3d_p": Family("SV3D_p", _video_unet(adm_in_channels=1280), (2, 4, *SQUARE), text=(1, 1, 32)),
    "hunyuan_dit_1": Family(
        "HunyuanDiT1",
        dict(
            image_model="hydit1",
            depth=4,
            hidden_size=128,
            num_heads=2,
            text_states_dim=32,
            text_states_dim_t5=32,
            size_cond=True,
            use_style_cond=True,
        ),
        (1, 4, *SQUARE),
        text=(1, 77, 32),
        extra={
            "conditioning_mt5xl": normal(1, 256, 32),
            "attention_mask": ones(1, 77),
            "attention_mask_mt5xl": ones(1, 256),
        },
    ),
    "flux_schnell": Family(
        "FluxSchnell", flux(image_model="flux", guidance_embed=False, vec_in_dim=32), (1, 16, *SQUARE)
    ),
    "flux_fill": Family(
        "FluxInpaint",
        flux(image_model="flux", guidance_embed=True, in_channels=96, vec_in_dim=32),
        (1, 16, *SQUARE),
        extra={"concat_latent_image": normal(1, 16, *SQUARE), "concat_mask": ones(1, 1, 16, 16, dtype=torch.float32)},
    ),
    "anima": Family(
        "Anima",
        cosmos(
            image_model="anima", pos_emb_learnable=True, rope_enable_fps_modulation=False, crossattn_emb_channels=1024
        ),
        (1, 16, 1, *SQUARE),
        text=(1, 7, 1024),
    ),
    "cosmos_i2v": Family(
        "CosmosI2V",
        cosmos(
            image_model="cosmos",
            block_config="FA-CA-MLP",
            pos_emb_learnable=False,
            block_x_format="THWBD",
            affline_emb_norm=True,
            in_channels=17,
            extra_per_block_abs_pos_emb=True,
            extra_per_block_abs_pos_emb_type="learnable",
        ),
        (1, 16, *VIDEO),
        extra=_picture(16, *VIDEO),
    ),
    "cosmos_predict2_i2v": Family(
        "CosmosI2VPredict2",
        cosmos(image_model="cosmos_predict2", pos_emb_learnable=True, rope_enable_fps_modulation=False, in_channels=17),
        (1, 16, *VIDEO),
        extra=_picture(16, *VIDEO),
    ),
    "hunyuan_video_i2v": Family(
        "HunyuanVideoI2V", hunyuan_video(in_channels=33), (1, 16, *VIDEO), extra=_picture(16, *VIDEO)
    ),
    "hunyuan_video_skyreels": Family(
        "HunyuanVideoSkyreelsI2V", hunyuan_video(in_channels=32), (1, 16, *VIDEO), extra=_picture(16, *VIDEO)
    ),
    "hunyuan_video_15": Family(
        "HunyuanVideo15",
        hunyuan_video(
            in_channels=65,
            out_channels=32,
            vision_in_dim=1152,
            vec_in_dim=None,
            guidance_embed=False,
            use_cond_type_embedding=True,
            patch_size=[1, 1, 1],
        ),
        (1, 32, *VIDEO),
        extra=_picture(32, *VIDEO),
    ),
    "hunyuan_video_15_sr": Family(
        "HunyuanVideo15_SR_Distilled",
        hunyuan_video(
            in_channels=98,
            out_channels=32,
            vision_in_dim=1152,
            vec_in_dim=None,
            guidance_embed=False,
            use_cond_type_embedding=True,
            patch_size=[1, 1, 1],
        ),
        (1, 32, *VIDEO),
    ),
    "wan21_causal": Family("WAN21_CausalAR_T2V", wan(), (1, 16, *VIDEO)),
    "wan21_i2v": Family("WAN21_I2V", wan(model_type="i2v", in_dim=36), (1, 16, *VIDEO)),
    "wan21_fun_control": Family("WAN21_FunControl2V", wan(in_dim=48), (1, 16, *VIDEO)),
    "wan21_vace": Family("WAN21_Vace", wan(model_type="vace", vace_layers=1, vace_in_dim=96), (1, 16, *VIDEO)),
    "wan21_camera": Family("WAN21_Camera", wan(model_type="camera", in_dim=32), (1, 16, *VIDEO)),
    "wan22_camera": Family("WAN22_Camera", wan(model_type="camera_2.2", in_dim=36), (1, 16, *VIDEO)),
    "wan22_s2v": Family("WAN22_S2V", wan(model_type="s2v"), (1, 16, *VIDEO)),
    "wan21_humo": Family("WAN21_HuMo", wan(model_type="humo", in_dim=36), (1, 16, *VIDEO)),
    "wan22_animate": Family("WAN22_Animate", wan(model_type="animate", in_dim=36), (1, 16, *VIDEO)),
    "wan21_scail": Family("WAN21_SCAIL", wan(model_type="scail"), (1, 16, *VIDEO)),
    "wan21_scail2": Family("WAN21_SCAIL2", wan(model_type="scail2"), (1, 16, *VIDEO)),
    "wan22_wandancer": Family("WAN22_WanDancer", wan(model_type="wandancer", in_dim=36), (1, 16, *VIDEO)),
    "wan21_flowrvs": Family("WAN21_FlowRVS", wan(model_type="flow_rvs"), (1, 16, *VIDEO)),
    "cogvideox_i2v": Family("CogVideoX_I2V", _cogvideox(), (1, 16, *VIDEO)),
    "cogvideox_inpaint": Family("CogVideoX_Inpaint", _cogvideox(in_channels=48), (1, 16, *VIDEO)),
    "seedvr2": Family(
        "SeedVR2",
        dict(
            image_model="seedvr2",
            norm_eps=1e-5,
            num_layers=2,
            mlp_type="swiglu",
            vid_dim=64,
            txt_in_dim=32,
            heads=2,
            head_dim=32,
            mm_layers=1,
            rope_dim=24,
            vid_out_norm=True,
        ),
        (1, 16, *VIDEO),
        extra={"condition": normal(1, 17, *VIDEO)},
    ),
    "hunyuan_image_refiner": Family(
        "HunyuanImage21Refiner",
        hunyuan_video(patch_size=[1, 1, 1], vec_in_dim=None, in_channels=128, out_channels=64),
        (1, 64, 1, *SQUARE),
        extra={"concat_latent_image": normal(1, 32, 1, *SQUARE)},
    ),
    "pid": Family(
        "PiD",
        dict(
            image_model="pid",
            num_groups=2,
            hidden_size=64,
            pixel_hidden_size=8,
            pixel_attn_hidden_size=64,
            pixel_num_groups=2,
            patch_depth=2,
            pixel_depth=1,
            patch_size=4,
            txt_embed_dim=32,
            lq_hidden_dim=32,
            lq_num_res_blocks=1,
        ),
        (1, 3, *SQUARE),
        extra={"lq_latent": normal(1, 16, 2, 2), "degrade_sigma": lambda g: torch.tensor([0.5])},
    ),
    "hidream_o1": Family(
        "HiDreamO1",
        dict(
            image_model="hidream_o1",
            text_config_overrides=dict(
                vocab_size=151680,
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=128,
            ),
            vision_config_overrides=dict(hidden_size=64, num_heads=2, intermediate_size=128, depth=1),
        ),
        (1, 3, 64, 64),
        extra={"text_input_ids": ones(1, 7)},
    ),
}
