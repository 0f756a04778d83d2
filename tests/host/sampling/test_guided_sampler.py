"""GradPaint Sampler: any sampler of the host inside."""

import entry_points
import pytest
import torch
import zoo
from entry_points import case


@pytest.fixture(scope="module")
def models(pack):
    return {"sd15": zoo.sd15(0), "flux": zoo.flux(0)}


def test_a_sampler_wrapped_twice_has_the_outer_settings(pack_nodes, models):
    problem = case("flux", models["flux"])
    once = entry_points.sampler(pack_nodes, problem, strength=3.0)[0]
    inner = entry_points.sampler(pack_nodes, problem, strength=0.5)[0]
    twice = entry_points.sampler(pack_nodes, problem, inner=inner, strength=3.0)[0]
    assert torch.equal(*(entry_points.custom(problem, problem.model, s)["samples"] for s in (once, twice)))


def test_the_samplers_own_object_is_untouched(pack_nodes, models):
    problem = case("flux", models["flux"])
    inner = entry_points.plain_sampler(problem)
    before = dict(vars(inner))
    plain = entry_points.custom(problem, problem.model, inner)["samples"]
    wrapped = entry_points.sampler(pack_nodes, problem, inner=inner)[0]
    entry_points.custom(problem, problem.model, wrapped)
    assert vars(inner) == before and torch.equal(entry_points.custom(problem, problem.model, inner)["samples"], plain)
    assert not any("forward" in vars(m) for m in problem.model.model.modules())


@pytest.mark.parametrize(
    "name, inputs",
    [
        ("SamplerDPMPP_2M_SDE", ("midpoint", 1.0, 1.0, "cpu")),
        ("SamplerEulerAncestral", (1.0, 1.0)),
        ("SamplerDPMAdaptative", (3, 0.5, 0.5, 0.05, 0.0, 1.0, 0.0, 0.81, 0.0, 1.0)),
        *(
            pytest.param(*rest, marks=pytest.mark.slow)
            for rest in (
                ("SamplerDPMPP_3M_SDE", (1.0, 1.0, "cpu")),
                ("SamplerDPMPP_SDE", (1.0, 1.0, 0.5, "cpu")),
                ("SamplerDPMPP_2S_Ancestral", (1.0, 1.0)),
                ("SamplerEulerAncestralCFGPP", (1.0, 1.0)),
                ("SamplerLMS", (4,)),
                ("SamplerER_SDE", ("ER-SDE", 3, 1.0, 1.0)),
                ("SamplerSEEDS2", ("phi_1", 1.0, 1.0, 0.5)),
            )
        ),
    ],
)
def test_every_sampler_node_of_the_host(pack_nodes, models, name, inputs):
    """With its own options: through the SAMPLER the picture is that of the same sampler under Apply GradPaint."""
    import comfy_extras.nodes_custom_sampler as nodes

    problem = case("flux", models["flux"], steps=4)
    inner = getattr(nodes, name).execute(*inputs).args[0]
    wrapped, record = entry_points.sampler(pack_nodes, problem, inner=inner)
    out = entry_points.custom(problem, problem.model, wrapped)["samples"]
    patched = entry_points.custom(problem, entry_points.apply(pack_nodes, problem)[0], inner)["samples"]
    assert torch.equal(out, patched) and out.isfinite().all() and record.last.backwards > 0
    known = (problem.mask == 0)[:, None].expand_as(out)
    assert (out - problem.latent["samples"])[known].abs().max() < 1e-5


@pytest.mark.parametrize("batch", [1, 2])
def test_a_noise_sampler_of_somebodys_own_is_drawn_from_by_the_run_only(pack_nodes, models, batch):
    """It makes noise of the real state's shape, from a generator of its own."""
    import comfy.k_diffusion.sampling as sampling
    import comfy.samplers

    problem = case("flux", models["flux"], batch=batch, steps=4)
    drawn = []

    def inner():
        generator = torch.Generator().manual_seed(1)

        def noise(sigma, sigma_next):
            drawn.append(float(sigma))
            return torch.randn(problem.latent["samples"].shape, generator=generator)

        return comfy.samplers.KSAMPLER(sampling.sample_euler_ancestral, {"noise_sampler": noise})

    plain = entry_points.custom(problem, problem.model, inner())["samples"]
    drawn.clear()
    sampler, record = entry_points.sampler(pack_nodes, problem, inner=inner())
    out = entry_points.custom(problem, problem.model, sampler)["samples"]
    assert len(drawn) == 3 and [s.step for s in record.last.guided] == [0, 1]
    unguided = entry_points.sampler(pack_nodes, problem, inner=inner(), strength=0.0)[0]
    unguided = entry_points.custom(problem, problem.model, unguided)["samples"]
    hole = (problem.mask > 0)[:, None].expand_as(out)
    assert (unguided - plain)[hole].abs().mean() < 0.5 * plain[hole].std()  # the same noise, another known part
    # The state itself is moved: that is known from the dry run alone.
    assert (out - unguided)[hole].abs().mean() > 0


def euler_without_a_function():
    """A SAMPLER of another kind than KSAMPLER, as nodes_void.py has one."""
    import comfy.samplers

    class Euler(comfy.samplers.Sampler):
        def sample(
            self,
            model_wrap,
            sigmas,
            extra_args,
            callback,
            noise,
            latent_image=None,
            denoise_mask=None,
            disable_pbar=False,
        ):
            model = comfy.samplers.KSamplerX0Inpaint(model_wrap, sigmas)
            model.latent_image, model.noise = latent_image, noise
            sampling = model_wrap.inner_model.model_sampling
            x = sampling.noise_scaling(sigmas[0], noise, latent_image, self.max_denoise(model_wrap, sigmas))
            for i in range(len(sigmas) - 1):
                x0_hat = model(x, sigmas[i].expand(len(x)), denoise_mask, **extra_args)
                callback(i, x0_hat, x, len(sigmas) - 1)
                x = x0_hat + (x - x0_hat) * sigmas[i + 1] / sigmas[i]
            return sampling.inverse_noise_scaling(sigmas[-1], x)

    return Euler()


def test_a_sampler_without_a_function_goes_by_the_noise_level(pack_nodes, models):
    """Euler's steps, but nothing says so: x0_hat is shifted instead of the state."""
    problem = case("sd15", models["sd15"], steps=8)
    pictures = {}
    for name, inner in (("known", entry_points.plain_sampler(problem)), ("unknown", euler_without_a_function())):
        for strength in (0.0, 1.0):
            sampler, record = entry_points.sampler(pack_nodes, problem, inner=inner, strength=strength)
            pictures[name, strength] = entry_points.custom(problem, problem.model, sampler)["samples"]
    assert record.last.backwards == 4
    assert torch.allclose(pictures["known", 0.0], pictures["unknown", 0.0], atol=1e-5)
    moved = [pictures[name, 1.0] - pictures[name, 0.0] for name in ("known", "unknown")]
    agree = torch.nn.functional.cosine_similarity(*(move.flatten() for move in moved), dim=0)
    assert agree > 0.8 and 0.3 < moved[1].norm() / moved[0].norm() < 1.5
    known = (problem.mask == 0)[:, None].expand_as(pictures["unknown", 1.0])
    assert (pictures["unknown", 1.0] - problem.latent["samples"])[known].abs().max() < 1e-5


def test_a_sampler_that_wraps_ours_is_told_the_right_order(pack_nodes, models):
    wrapped = entry_points.sampler(pack_nodes, case("flux", models["flux"]))[0]
    with pytest.raises(AttributeError, match="must be the last one.*before it"):
        getattr(wrapped, "sampler_function")  # noqa: B009
    assert wrapped.extra_options == {} and wrapped.inpaint_options == {}


def test_max_denoise_is_the_inner_samplers(pack_nodes, models):
    """A run that starts below the highest noise level keeps something of what is in the hole, unless the sampler says
    that it does not."""
    import comfy_extras.nodes_custom_sampler as nodes

    problem = case("flux", models["flux"])
    inner = entry_points.plain_sampler(problem)
    sampler = entry_points.sampler(pack_nodes, problem, inner=inner)[0]
    full = entry_points.sigmas(problem)
    other = {"samples": torch.where(problem.mask[:, None] > 0, 5.0, problem.latent["samples"])}

    def leaks(sigmas) -> bool:
        with torch.inference_mode():
            pictures = [
                nodes.SamplerCustom.execute(
                    problem.model,
                    True,
                    3,
                    1.0,
                    problem.positive,
                    problem.negative,
                    sampler,
                    sigmas,
                    {**latent, "noise_mask": problem.mask},
                ).args[0]["samples"]
                for latent in (problem.latent, other)
            ]
        return not torch.equal(*pictures)

    assert not leaks(full) and leaks(full[1:])
    inner.max_denoise = lambda *args: True
    assert not leaks(full[1:]) and sampler.max_denoise(None, full) is True
