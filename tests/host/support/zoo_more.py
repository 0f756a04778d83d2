"""Tiny random models of further families, each a row of `FAMILIES`: the host's config class, its settings made small,
the latent's shape and the conditioning it reads. Built like those of `zoo`: by the host's classes, in inference mode.
"""

from __future__ import annotations

import contextlib

import torch
import zoo
from zoo_settings import (
    SQUARE,
    VIDEO,
    Family,
    chroma,
    cosmos,
    flux,
    hunyuan_video,
    kandinsky,
    lumina,
    normal,
    ones,
    unet,
    wan,
    z_image,
)
from zoo_variants import VARIANTS

# Their network accepts no double precision, so the differences are taken in float32, with a longer step.
SINGLE_PRECISION = {"cosmos", "cosmos_i2v"}
# They overwrite tensors that their own graph needs, so plain autograd refuses them too.
WRITES_IN_PLACE = {"ltxv", "ltxav", "pixeldit", "pid"}
# The host can't start them from a given latent (see test_latents), only from an empty one.
STARTS_EMPTY = {"hunyuan_image_refiner"}
MADE_FOR = (0, 29)  # ComfyUI's version; older ones lack some of the families
STEP = {"hidream": 1e-4}  # routes tokens to experts: a longer step crosses from one to another

FAMILIES: dict[str, Family] = {
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
    "omnigen2": Family(
        "Omnigen2",
        dict(
            image_model="omnigen2",
            axes_dim_rope=[16, 16, 16],
            axes_lens=[1024, 1664, 1664],
            hidden_size=96,
            in_channels=16,
            multiple_of=32,
            num_attention_heads=2,
            num_kv_heads=1,
            num_layers=2,
            num_refiner_layers=1,
            patch_size=2,
            text_feat_dim=32,
            timestep_scale=1000.0,
        ),
        (1, 16, *SQUARE),
        extra={"attention_mask": ones(1, 7)},
    ),
    "kandinsky5_image": Family(
        "Kandinsky5Image", kandinsky(visual_embed_dim=64, rope_scale_factor=(1.0, 1.0, 1.0)), (1, 16, 1, *SQUARE)
    ),
    "ernie_image": Family(
        "ErnieImage",
        dict(
            image_model="ernie",
            hidden_size=96,
            num_attention_heads=2,
            num_layers=2,
            ffn_hidden_size=192,
            text_in_dim=32,
            rope_axes_dim=(16, 16, 16),
        ),
        (1, 128, *SQUARE),
    ),
    "pixeldit": Family(
        "PixelDiTT2I",
        dict(
            image_model="pixeldit_t2i",
            num_groups=2,
            hidden_size=64,
            pixel_hidden_size=8,
            pixel_attn_hidden_size=64,
            pixel_num_groups=2,
            patch_depth=2,
            pixel_depth=1,
            patch_size=4,
            txt_embed_dim=32,
        ),
        (1, 3, *SQUARE),
    ),
    "longcat_image": Family(
        "LongCatImage",
        flux(image_model="flux", guidance_embed=False, txt_ids_dims=[1, 2], context_in_dim=32),
        (1, 16, *SQUARE),
    ),
    "krea2": Family(
        "Krea2",
        dict(
            image_model="krea2",
            features=128,
            tdim=64,
            txtdim=32,
            heads=2,
            kvheads=1,
            layers=2,
            txtlayers=1,
            txtheads=2,
            txtkvheads=2,
        ),
        (1, 16, 1, *SQUARE),
    ),
    "mage_flow": Family(
        "MageFlow",
        dict(
            image_model="mage_flow",
            in_channels=128,
            num_layers=2,
            attention_head_dim=64,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(16, 24, 24),
        ),
        (1, 128, *SQUARE),
    ),
    "lens": Family(
        "Lens",
        dict(
            image_model="lens",
            in_channels=128,
            out_channels=32,
            num_layers=2,
            attention_head_dim=64,
            num_attention_heads=2,
            enc_hidden_dim=32,
            multi_layer_encoder_feature=False,
            selected_layer_index=(0,),
        ),
        (1, 128, *SQUARE),
    ),
    "joyimage": Family(
        "JoyImage",
        dict(
            image_model="joyimage",
            in_channels=16,
            hidden_size=128,
            patch_size=[1, 2, 2],
            num_layers=2,
            num_attention_heads=2,
            text_dim=32,
            rope_dim_list=[16, 24, 24],
        ),
        (1, 16, 1, *SQUARE),
    ),
    "boogu": Family(
        "Boogu",
        dict(
            image_model="boogu",
            hidden_size=96,
            num_layers=1,
            num_double_stream_layers=1,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=32,
            axes_dim_rope=(16, 16, 16),
            instruction_feat_dim=32,
        ),
        (1, 16, *SQUARE),
        extra={"attention_mask": ones(1, 7)},
    ),
    "ideogram4": Family(
        "Ideogram4",
        dict(
            image_model="ideogram4",
            in_channels=128,
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=64,
            intermediate_size=192,
            adaln_dim=64,
            llm_features_dim=32,
            mrope_section=[12, 10, 10],
        ),
        (1, 128, *SQUARE),
    ),
    "cascade_c": Family(
        "Stable_Cascade_C",
        dict(
            stable_cascade_stage="c",
            c_cond=64,
            c_hidden=[64, 64],
            nhead=[2, 2],
            blocks=[[1, 1], [1, 1]],
            c_clip_text=32,
            c_clip_text_pooled=32,
        ),
        (1, 16, *SQUARE),
    ),
    "wan22_ti2v": Family("WAN22_T2V", wan(out_dim=48, in_dim=48), (1, 48, *VIDEO)),
    "wan21": Family("WAN21_T2V", wan(), (1, 16, *VIDEO)),
    "hunyuan_video": Family("HunyuanVideo", hunyuan_video(), (1, 16, *VIDEO)),
    "cosmos": Family(
        "CosmosT2V",
        cosmos(
            image_model="cosmos",
            block_config="FA-CA-MLP",
            pos_emb_learnable=False,
            block_x_format="THWBD",
            affline_emb_norm=True,
            extra_per_block_abs_pos_emb=True,
            extra_per_block_abs_pos_emb_type="learnable",
        ),
        (1, 16, *VIDEO),
    ),
    "cosmos_predict2": Family(
        "CosmosT2IPredict2",
        cosmos(image_model="cosmos_predict2", pos_emb_learnable=True, rope_enable_fps_modulation=False),
        (1, 16, 1, *SQUARE),
    ),
    "ltxv": Family(
        "LTXV",
        dict(
            image_model="ltxv",
            num_layers=2,
            attention_head_dim=32,
            num_attention_heads=2,
            cross_attention_dim=64,
            caption_channels=32,
        ),
        (1, 128, *VIDEO),
        extra={"attention_mask": ones(1, 7)},
    ),
    "ltxav": Family(
        "LTXAV",
        dict(
            image_model="ltxav",
            num_layers=2,
            attention_head_dim=32,
            num_attention_heads=2,
            cross_attention_dim=64,
            audio_attention_head_dim=16,
            audio_num_attention_heads=2,
            audio_cross_attention_dim=32,
            caption_channels=32,
            rope_type="split",
            frequencies_precision="float64",
            connector_attention_head_dim=16,
            connector_num_attention_heads=2,
            connector_num_layers=1,
        ),
        ((1, 128, *VIDEO), (1, 8, 5, 16)),
    ),
    "mochi": Family(
        "GenmoMochi",
        dict(
            image_model="mochi_preview",
            depth=2,
            patch_size=2,
            num_heads=2,
            hidden_size_x=48,
            hidden_size_y=48,
            mlp_ratio_x=256.0,
            mlp_ratio_y=128.0,
            learn_sigma=False,
            in_channels=12,
            qk_norm=True,
            qkv_bias=False,
            out_bias=True,
            patch_embed_bias=True,
            posenc_preserve_area=True,
            timestep_mlp_bias=True,
            attend_to_padding=False,
            timestep_scale=1000.0,
            use_t5=True,
            t5_feat_dim=32,
            t5_token_length=7,
            rope_theta=10000.0,
        ),
        (1, 12, *VIDEO),
        extra={"attention_mask": ones(1, 7)},
    ),
    "kandinsky5": Family(
        "Kandinsky5",
        kandinsky(visual_embed_dim=132),
        (1, 16, *VIDEO),
        extra={"concat_mask": ones(1, 1, *VIDEO, dtype=torch.float32)},
    ),
    "cogvideox": Family(
        "CogVideoX_T2V",
        dict(
            image_model="cogvideox",
            num_attention_heads=2,
            attention_head_dim=32,
            time_embed_dim=64,
            num_layers=2,
            in_channels=16,
            patch_size=2,
            text_embed_dim=32,
            use_learned_positional_embeddings=False,
            use_rotary_positional_embeddings=True,
        ),
        (1, 16, *VIDEO),
    ),
    **VARIANTS,
}


def build(name: str, seed: int = 0, dtype=torch.float32):
    """A MODEL of the family."""
    import comfy.supported_models

    family = FAMILIES[name]
    with torch.inference_mode(), _older_hosts_may_lack(name):
        config = getattr(comfy.supported_models, family.config)(dict(family.settings))
        config.unet_config.update(family.settings)  # some classes insist on the sizes of the one model there is
        config.set_inference_dtype(dtype, None)
        model = config.get_model(family.state_dict())
        saved = model.diffusion_model.state_dict()
        for buffer_name, buffer in model.diffusion_model.named_buffers():
            if buffer_name in saved:  # a checkpoint would fill it (SD3's position table)
                buffer.normal_(generator=torch.Generator().manual_seed(seed))
        return zoo._patcher(model, seed)


@contextlib.contextmanager
def _older_hosts_may_lack(name: str):
    """Skips the test where the host is older than the one that the zoo was made for, and lacks the family."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        from comfyui_version import __version__

        if tuple(int(part) for part in __version__.split(".")[:2]) >= MADE_FOR:
            raise
        import pytest

        pytest.skip(f"ComfyUI {__version__} does not know {name} as the zoo does ({error})")


def conditioning(name: str, seed: int = 1):
    """The host's conditioning format for a family: random embeddings, in inference mode."""
    family = FAMILIES[name]
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        return [
            [
                torch.randn(family.text, generator=generator),
                {
                    "pooled_output": torch.randn(1, family.pooled, generator=generator),
                    **{key: make(generator) for key, make in family.extra.items()},
                },
            ]
        ]


SHAPES = {name: family.shape for name, family in FAMILIES.items()}
