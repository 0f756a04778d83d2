"""Patches on a model or its conditioning: gradients through them are right, and a GradPaint run works."""

import importlib

import controls
import pytest
import torch
import zoo
from comparing import base, compare, run, text, two_blocks
from offload import offloading
from one_step import SHAPE, difference_error, evaluate, make_ordinary
from sampling import problem, sample, schedule
from torch.nn import Linear
from twins import relative_error


class TestConditioning:
    @pytest.mark.parametrize("cfg", [1.0, 4.0])
    def test_cfg(self, cfg, tools):
        twin = zoo.sd15()
        make_ordinary(twin.model)
        expected_out, expected = evaluate(tools, twin, text(), cfg=cfg, mode="plain")
        out, grad = evaluate(tools, zoo.sd15(), text(), cfg=cfg)
        assert torch.equal(out, expected_out) and relative_error(grad, expected) < 1e-5
        assert difference_error(tools, grad, zoo.sd15(), text(), cfg=cfg) < 2e-3

    def test_areas_and_masks(self, tools):
        mask = torch.zeros(1, 128, 128)
        mask[:, :, 40:] = 1
        positive = [
            *text(1, area=(8, 8, 0, 4), strength=0.7),
            *text(3, mask=mask, mask_strength=0.9),
            *text(4, area=("percentage", 0.5, 0.5, 0.25, 0.25), strength=1.0),
            *text(5),
        ]
        negative = [*text(2), *text(6, mask=1 - mask, set_area_to_bounds=True)]
        compare(tools, positive=positive, negative=negative, cfg=3.0)

    def test_a_default_for_the_rest(self, tools):
        mask = torch.zeros(1, 128, 128)
        mask[:, :, 40:] = 1
        compare(tools, positive=[*text(1, mask=mask), *text(3, default=True)], cfg=2.0)

    def test_timestep_ranges(self, tools):
        now = text(1, start_percent=0.0, end_percent=1.0)
        never = text(3, start_percent=0.0, end_percent=0.01)
        _, grad = compare(tools, positive=[*now, *never], cfg=2.0)
        assert torch.equal(grad, evaluate(tools, zoo.sd15(), now, cfg=2.0)[1])
        run(tools, zoo.sd15(), [*text(1, start_percent=0.0, end_percent=0.5), *text(3, start_percent=0.5)])

    @pytest.mark.parametrize("given", [False, True])
    def test_inpaint_models(self, given, tools):
        """Nine channels: mask and masked image beside the state, from the conditioning or from the latent's mask."""

        def model(ordinary):
            patcher = zoo.sd15(in_channels=9)
            if ordinary:
                make_ordinary(patcher.model)
            return patcher

        extra = {}
        if given:
            generator = torch.Generator().manual_seed(4)
            extra = {
                "concat_latent_image": torch.randn(SHAPE, generator=generator),
                "concat_mask": (torch.rand(1, 1, 128, 128, generator=generator) > 0.5).float(),
            }
        compare(tools, model, text(1, **extra), text(2, **extra), cfg=2.0)

    def test_flux_fill(self, tools):
        shape, generator = zoo.SHAPES["flux"], torch.Generator().manual_seed(4)
        extra = {
            "concat_latent_image": torch.randn(shape, generator=generator),
            "concat_mask": (torch.rand(1, 1, 128, 128, generator=generator) > 0.5).float(),
            "guidance": 30.0,
        }
        positive = [[embedding, {**options, **extra}] for embedding, options in zoo.conditioning("flux")]
        model, twin = (zoo.flux(config="FluxInpaint", in_channels=96) for _ in range(2))
        make_ordinary(twin.model)
        expected_out, expected = evaluate(tools, twin, positive, positive, 1.0, "plain", shape)
        out, grad = evaluate(tools, model, positive, positive, shape=shape)
        assert relative_error(out, expected_out) < 1e-5 and relative_error(grad, expected) < 1e-4
        assert difference_error(tools, grad, model, positive, positive, shape=shape) < 5e-3
        other = [[embedding, {**options, "concat_mask": 0 * extra["concat_mask"]}] for embedding, options in positive]
        assert not torch.allclose(evaluate(tools, model, other, other, shape=shape)[0], out)  # it looks at the mask

    @pytest.mark.parametrize("sampler", ["euler_cfg_pp", "euler_ancestral_cfg_pp", "dpmpp_2m_cfg_pp"])
    def test_cfg_pp(self, sampler, tools):
        run(tools, zoo.sd15(), sampler=sampler, cfg=1.5)


class TestControl:
    @pytest.mark.parametrize("name", ["controlnet", "control_lora", "t2i_adapter"])
    def test_one(self, name, tools):
        def conditioning(ordinary):
            return controls.with_control(text(1), getattr(controls, name)(ordinary=ordinary))

        out, _ = compare(tools, two_blocks, conditioning=conditioning, cfg=2.0)
        assert relative_error(evaluate(tools, two_blocks(False), text(1), cfg=2.0)[0], out) > 0.01

    def test_chained_for_a_share_of_the_run(self, tools):
        def conditioning(ordinary):
            return controls.with_control(
                text(1),
                *(getattr(controls, name)(ordinary=ordinary) for name in ("t2i_adapter", "controlnet", "control_lora")),
                percent=(0.0, 0.8),
            )

        compare(tools, two_blocks, conditioning=conditioning, cfg=2.0)

    def test_offloaded(self, tools, monkeypatch):
        def result():
            chain = controls.with_control(text(1), controls.controlnet(), controls.control_lora())
            return evaluate(tools, two_blocks(False), chain, cfg=2.0)

        out, grad = result()
        with offloading(monkeypatch) as state:
            other_out, other = result()
        assert torch.equal(out, other_out) and torch.equal(grad, other) and state.taken == state.released > 0


def tensor(ordinary: bool, *shape, seed: int = 31) -> torch.Tensor:
    """A random tensor as a node would make it (in inference mode), or an ordinary one for the plain twin."""
    with torch.inference_mode(not ordinary):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class IpAdapter:
    """Like IP-Adapter: image tokens with their own layers and a second attention, kept in an object."""

    def __init__(self, ordinary: bool, width: int):
        with torch.inference_mode(not ordinary), torch.no_grad():
            self.tokens = tensor(ordinary, 1, 4, 16)
            self.to_k, self.to_v = Linear(16, width), Linear(16, width)
            self.gate = Linear(width, width)  # a layer on what has a gradient
            for i, layer in enumerate((self.to_k, self.to_v, self.gate)):
                zoo._randomise(layer, i)
            if ordinary:
                make_ordinary(torch.nn.ModuleList([self.to_k, self.to_v, self.gate]))

    def __call__(self, q, k, v, extra_options):
        from comfy.ldm.modules.attention import optimized_attention

        heads = extra_options["n_heads"]
        tokens = self.tokens.expand(len(q), -1, -1)
        out = optimized_attention(q, k, v, heads)
        return out + 0.5 * self.gate(optimized_attention(q, self.to_k(tokens), self.to_v(tokens), heads))


class TestPatches:
    def test_ip_adapter(self, tools):
        def model(ordinary):
            patched = base(ordinary).clone()
            patched.set_model_attn2_replace(IpAdapter(ordinary, 64), "input", 1)
            patched.set_model_attn2_replace(IpAdapter(ordinary, 128), "middle", 0)
            return patched

        compare(tools, model, cfg=2.0, adapts=True)

    def test_attention_and_block_patches(self, tools):
        def model(ordinary):
            patched = base(ordinary).clone()
            more, scale = tensor(ordinary, 1, 3, zoo.CONTEXT), tensor(ordinary, 1, seed=32)
            grid = tensor(ordinary, 1, 1, 16, 16, seed=33)
            patched.set_model_attn2_patch(
                lambda q, k, v, options: (
                    q,
                    torch.cat([k, more.expand(len(k), -1, -1)], 1),
                    torch.cat([v, more.expand(len(v), -1, -1)], 1),
                )
            )
            patched.set_model_attn1_patch(lambda q, k, v, options: (q * scale, k, v))
            patched.set_model_attn1_output_patch(lambda out, options: out * (1 + scale))
            patched.set_model_output_block_patch(
                lambda h, skip, options: (h, skip * torch.nn.functional.interpolate(grid, skip.shape[-2:]).sigmoid())
            )
            patched.set_model_input_block_patch(lambda h, options: h.mul_(1.1))
            return patched

        compare(tools, model, cfg=2.0, adapts=True)

    @pytest.mark.parametrize("name", ["FreeU_V2", "PerturbedAttentionGuidance", "SelfAttentionGuidance", "RescaleCFG"])
    def test_nodes_of_the_host(self, name, tools):
        node, arguments = {
            "FreeU_V2": ("nodes_freelunch.FreeU_V2", (1.3, 1.4, 0.9, 0.2)),
            "PerturbedAttentionGuidance": ("nodes_pag.PerturbedAttentionGuidance", (3.0,)),
            "SelfAttentionGuidance": ("nodes_sag.SelfAttentionGuidance", (0.5, 2.0)),
            "RescaleCFG": ("nodes_model_advanced.RescaleCFG", (0.7,)),
        }[name]
        module, _, node = node.partition(".")
        node = getattr(importlib.import_module(f"comfy_extras.{module}"), node)

        def model(ordinary):
            patcher = base(ordinary)
            with torch.inference_mode(not ordinary):
                result = getattr(node(), getattr(node, "FUNCTION", "execute"))(patcher, *arguments)
            return getattr(result, "args", result)[0]

        compare(tools, model, cfg=3.0, adapts=name == "FreeU_V2")

    def test_function_wrapper_and_post_cfg(self, tools):
        def model(ordinary):
            patched = base(ordinary).clone()
            factor = tensor(ordinary, 1, 4, 1, 1)
            patched.set_model_unet_function_wrapper(
                lambda apply, args: apply(args["input"], args["timestep"], **args["c"]) * factor
            )
            patched.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * (1 + 0.1 * factor))
            patched.set_model_sampler_pre_cfg_function(lambda args: [c * factor for c in args["conds_out"]])
            patched.set_model_sampler_cfg_function(
                lambda args: args["uncond"] + (args["cond"] - args["uncond"]) * args["cond_scale"] * factor.abs()
            )
            return patched

        compare(tools, model, cfg=2.0, adapts=True)

    def test_calc_cond_batch_function(self, tools):
        import comfy.samplers

        def model(ordinary):
            patched = base(ordinary).clone()
            factor = tensor(ordinary, 1, 4, 1, 1)

            def calculate(args):
                out = comfy.samplers.calc_cond_batch(
                    args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
                )
                return [o * factor for o in out]

            patched.set_model_sampler_calc_cond_batch_function(calculate)
            return patched

        compare(tools, model, cfg=2.0, adapts=True)

    @pytest.mark.parametrize("fraction", [0.5, 1.0])
    def test_features_kept_from_step_to_step(self, fraction, tools):
        """Like DeepCache: every second step reuses deep features of the step before it, guided or not."""
        kept, graphs = [], []

        def patch(h, skip, options):
            if options["block"][1] != 0:
                return h, skip
            if len(kept) % 2 == 0:
                kept.append(h)
                return h, skip
            kept.append(None)
            graphs.append(kept[-2].requires_grad)
            return h * 0.1 + kept[-2] * kept[-2].sigmoid(), skip

        model = zoo.sd15().clone()
        model.set_model_output_block_patch(patch)
        noise, latent, mask = problem("sd15")
        settings = tools.settings.GuidanceSettings(schedule=tools.settings.GuideSchedule(fraction=fraction))
        guided = tools.guidance.apply_gradpaint(model, settings, (records := []).append)
        out = sample(guided, "sd15", "euler", schedule(model, "euler", 6), noise, latent, mask)
        assert out.isfinite().all() and records[0].skipped == 0
        assert records[0].backwards == 6 * fraction and len(graphs) >= 3
