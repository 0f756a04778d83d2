"""Hooks change the weights within one evaluation: each conditioning's gradient is that of its own weights."""

import controls
import loras
import pytest
import torch
import zoo
from comparing import run, text, two_blocks
from one_step import difference_error, evaluate, make_ordinary
from twins import relative_error


class TestHooks:
    def hooked(self, seed, strength, keyframes=None):
        import comfy.hooks

        state = loras.lora(zoo.sd15(), seed)
        group = comfy.hooks.create_hook_lora(state, strength, 0.0)
        if keyframes is not None:
            group.set_keyframes_on_hooks(keyframes)
        return state, group

    def merged(self, *states_and_strengths):
        model = zoo.sd15()
        for state, strength in states_and_strengths:
            loras.merge(model, state, strength)
        make_ordinary(model.model)
        return model

    def expected(self, tools, cfg, positive, negative):
        """CFG is a sum, so its gradient is that of two runs of models with the weights merged in."""
        _, a = evaluate(tools, positive, text(1), cfg=1.0, mode="plain")
        _, b = evaluate(tools, negative, text(2), cfg=1.0, mode="plain")
        return cfg * a + (1 - cfg) * b

    def test_on_the_positive_only(self, tools):
        state, group = self.hooked(11, 0.8)
        positive = text(1, hooks=group)
        _, grad = evaluate(tools, zoo.sd15(), positive, text(2), cfg=3.0)
        expected = self.expected(tools, 3.0, self.merged((state, 0.8)), self.merged())
        assert relative_error(grad, expected) < 1e-5
        assert relative_error(grad, self.expected(tools, 3.0, self.merged(), self.merged())) > 0.01
        run(tools, zoo.sd15(), positive)

    def test_different_ones(self, tools):
        import comfy.hooks

        one, first = self.hooked(11, 0.8)
        two, second = self.hooked(12, -0.6)
        both = comfy.hooks.HookGroup.combine_all_hooks([first, second])
        positive, negative = text(1, hooks=both), text(2, hooks=second)
        model = zoo.sd15()
        weights = {k: v.clone() for k, v in model.model.state_dict().items()}
        _, grad = evaluate(tools, model, positive, negative, cfg=3.0)
        expected = self.expected(tools, 3.0, self.merged((one, 0.8), (two, -0.6)), self.merged((two, -0.6)))
        assert relative_error(grad, expected) < 1e-5
        run(tools, model, positive, negative)
        after = model.model.state_dict()
        assert all(torch.equal(after[k], v) for k, v in weights.items())

    @pytest.mark.parametrize("memory", ["low memory", "lowest memory"])
    def test_recomputed_blocks_see_the_weights_of_their_part(self, memory, tools):
        positive, negative = (text(i, hooks=self.hooked(10 + i, 0.8)[1]) for i in (1, 2))
        results = [run(tools, zoo.sd15(), positive, negative, memory=mode)[0] for mode in ("fastest", memory)]
        assert relative_error(*results) < 1e-5

    def test_three_parts_of_the_positive(self, tools):
        """Parts with areas: each with its own weights."""
        _, first = self.hooked(11, 0.8)
        _, second = self.hooked(12, -0.6)
        positive = [*text(1, hooks=first, area=(16, 8, 0, 0)), *text(3, hooks=second, area=(16, 8, 0, 8)), *text(4)]
        out, grad = evaluate(tools, zoo.sd15(), positive, text(2), cfg=3.0)
        assert difference_error(tools, grad, zoo.sd15(), positive, text(2), cfg=3.0) < 3e-3

    def test_strength_that_changes_over_the_steps(self, tools):
        import comfy.hooks

        def positive():
            frames = comfy.hooks.HookKeyframeGroup()
            for strength, start in ((1.0, 0.0), (0.2, 0.4), (0.0, 0.7)):
                frames.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
            return text(1, hooks=self.hooked(11, 0.8, frames)[1])

        model = zoo.sd15()
        guided, record = run(tools, model, positive(), steps=3)
        constant, _ = run(tools, model, text(1, hooks=self.hooked(11, 0.8)[1]), steps=3)
        assert not torch.allclose(guided, constant)
        assert torch.equal(run(tools, model, positive(), steps=3)[0], guided)

    def test_hooks_that_come_with_a_controlnet(self, tools):
        """And hooks on transformer options, for one conditioning only."""
        import comfy.hooks

        state, weights = self.hooked(11, 0.8)
        options = comfy.hooks.HookGroup()
        options.add(
            comfy.hooks.TransformerOptionsHook(
                {"patches": {"attn1_output_patch": [lambda out, extra: out * 1.5]}},
                comfy.hooks.EnumHookScope.HookedOnly,
            )
        )
        control = controls.controlnet()
        control.extra_hooks = weights
        positive = controls.with_control(text(1, hooks=options), control)
        _, grad = evaluate(tools, two_blocks(False), positive, text(2), cfg=3.0)
        assert difference_error(tools, grad, two_blocks(False), positive, text(2), cfg=3.0) < 5e-3
        bare = controls.with_control(text(1), controls.controlnet())
        assert relative_error(evaluate(tools, two_blocks(False), bare, text(2), cfg=3.0)[1], grad) > 0.01
        run(tools, two_blocks(False), positive)

    def test_with_adapters_beside_the_weights(self, tools):
        """The host takes injected forwards off and puts them on again at each change of weights."""
        import comfy.sd

        state, group = self.hooked(11, 0.8)
        beside = {
            key: value for key, value in loras.lora(zoo.sd15(), 13).items() if not key.endswith((".diff", ".diff_b"))
        }
        with torch.inference_mode():
            model = comfy.sd.load_bypass_lora_for_models(zoo.sd15(), None, beside, 0.5, 0.0)[0]
        positive = text(1, hooks=group)
        _, grad = evaluate(tools, model, positive, text(2), cfg=3.0)
        expected = self.expected(tools, 3.0, self.merged((state, 0.8), (beside, 0.5)), self.merged((beside, 0.5)))
        assert relative_error(grad, expected) < 1e-5
        run(tools, model, positive)

    def test_parameters_that_no_layer_holds(self, tools):
        """A network's own parameters enter the graph; the next conditioning's weights must not change them there."""
        import comfy.hooks

        def model():
            patcher = zoo.sd15()
            network = patcher.model.diffusion_model
            with torch.inference_mode():
                network.gain = torch.nn.Parameter(torch.full((1, 4, 1, 1), 1.5), requires_grad=False)
            forward = type(network).forward
            # Last in the network: its derivative is taken before any layer's VJP has put the weights back.
            network.forward = lambda *args, **kwargs: forward(network, *args, **kwargs) * network.gain
            return patcher

        with torch.inference_mode():
            group = comfy.hooks.create_hook_model_as_lora(
                {"diffusion_model.gain": torch.full((1, 4, 1, 1), 3.0)}, None, 1.0, 0.0
            )
        positive = text(1, hooks=group)
        patcher = model()
        _, grad = evaluate(tools, patcher, positive, text(2), cfg=3.0)
        assert difference_error(tools, grad, model(), positive, text(2), cfg=3.0) < 3e-3
        assert (patcher.model.diffusion_model.gain == 1.5).all()
