"""Ends of runs and of plans that the pictures of ordinary runs do not show."""

import pytest
import torch

from gradpaint.method.gradient import LossGradient, x0_gradient
from gradpaint.method.plan import Progress, RunPlan, Step
from gradpaint.method.record import StepKind
from gradpaint.method.settings import AlignmentSettings, GuidanceSettings, GuideSchedule
from gradpaint.method.terms import loss_terms, total_loss
from gradpaint.sampling.baselines.combine import CombineNoisy, PastedAtTheEnd
from gradpaint.sampling.evaluate import StepEvaluator
from gradpaint.sampling.inpaint_method import InpaintMethod
from gradpaint.sampling.methods import METHODS
from gradpaint.sampling.run import VELevels, run_method

Y = torch.full((1, 3, 8, 8), -1.0)
GRAY = torch.full((1, 1, 8, 8), 0.5)
HOLE = torch.zeros(1, 1, 8, 8)
HOLE[..., 2:6, 2:6] = 1
KEEP = GuidanceSettings(schedule=GuideSchedule(fraction=1.0, every=3, between="keep"))


def nothing(x, sigma):
    return torch.zeros_like(x)


def gradient_of(x0_hat, y, mask, settings):
    losses = total_loss(x0_hat, y, mask, loss_terms(settings))
    return LossGradient(losses, torch.ones_like(x0_hat), torch.ones(len(x0_hat)))


def test_gray_parts_are_mixed_before_the_result_is_clipped():
    class Far(PastedAtTheEnd):
        def displacement(self, plan, step, levels, mask):
            return torch.full_like(Y, 4.0)

    out = run_method(nothing, Y, GRAY, Far(), sigmas=torch.tensor([1.0, 0.0]), progress=False).image
    assert torch.equal(out, torch.ones_like(Y))  # 0.5 * 4 - 0.5, clipped; not 0.5 * 1 - 0.5


def test_gray_parts_of_a_run_that_ends_with_noise_are_mixed_once():
    states = []

    class Noted(CombineNoisy):
        def enter(self, *arguments):
            states.append(super().enter(*arguments))
            return states[-1]

    out = run_method(nothing, Y, GRAY, Noted(), sigmas=torch.tensor([2.0, 1.0]), clip=None, progress=False).image
    assert torch.equal(out, states[-1])


def test_a_step_without_a_direction_to_reuse_is_plain():
    """The segments before were not guided: nothing is displaced, and nothing is said to be."""
    plan = RunPlan(KEEP, Y, HOLE, 5, first=1)
    assert plan.planned()[0] is StepKind.REUSED
    assert [plan.begin(0), plan.begin(1)] == [StepKind.PLAIN] * 2
    assert plan.displacement(Step(0, 2.0, 1.0), VELevels()) is None
    resumed = RunPlan(KEEP, Y, HOLE, 5, first=1, resume=Progress(torch.ones_like(Y), None, 1))
    assert resumed.begin(0) is StepKind.REUSED
    assert resumed.displacement(Step(0, 2.0, 1.0), VELevels()) is not None


@pytest.mark.parametrize("loss", ["edge-match", "alignment"])
def test_the_adaptive_stop_goes_by_a_mean_under_the_mask_of_the_step(loss):
    """Differential Diffusion hands each step a mask of its own."""
    settings = GuidanceSettings(
        alignment=AlignmentSettings(loss=loss, lambda_al=0.0), schedule=GuideSchedule(mode="adaptive")
    )
    y = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x0_hat, seen = y + torch.tensor([0.5, 2.0]).view(2, 1, 1, 1), []
    plan = RunPlan(settings, y, HOLE, 4)
    plan.stop.update = lambda i, mse, a, b: seen.append(mse)
    for mask in (HOLE, torch.cat([HOLE, 1 - HOLE])):
        plan.take(0, gradient_of(x0_hat, y, mask, settings), (1.0, 1.0), mask)
    for mse in seen:
        assert torch.allclose(mse, torch.tensor([0.25, 4.0]))


def test_x0_needs_the_masked_mse():
    with pytest.raises(ValueError, match="lambda_mse is 0, but must be above 0 with gradient 'x0'"):
        GuidanceSettings(gradient="x0", lambda_mse=0.0)
    # Where memory is too short for a gradient through the model, the loss at the border alone pulls nowhere.
    x0_hat = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    border_alone = x0_gradient(x0_hat, Y, HOLE, loss_terms(GuidanceSettings(lambda_mse=0.0)))
    assert not border_alone.gradient.any() and border_alone.losses["alignment"] > 0
    assert x0_gradient(x0_hat, Y, HOLE, loss_terms(GuidanceSettings())).gradient.any()


class Learned:
    """A denoiser with a learned variance and two branches, of which one has none."""

    def __call__(self, x, sigma):
        return x / (1 + sigma**2)

    through_cond = __call__

    def evaluate(self, x, sigma):
        return self(x, sigma), torch.ones_like(x)

    def learned_variance(self, values, sigma, sigma_next):
        return values


def test_a_step_has_its_own_learned_variance_or_none():
    settings = GuidanceSettings(gradient="cond", schedule=GuideSchedule(fraction=1.0, every=2))
    plan = RunPlan(settings, Y, HOLE, 3)
    evaluate, variances = StepEvaluator(Learned(), InpaintMethod(settings), plan, Y, HOLE), []
    evaluate.wants_variance = True
    for step in (Step(0, 4.0, 2.0), Step(1, 2.0, 1.0), Step(2, 1.0, 0.5)):
        evaluate(torch.ones_like(Y), step)
        variances.append(evaluate.variance(step))
    assert [variance is None for variance in variances] == [True, False, True]


def test_what_only_run_takes_is_no_option_of_the_method_itself():
    with pytest.raises(ValueError, match="keep_x0 is no option of gradpaint; its options: none"):
        METHODS["gradpaint"].make(keep_x0=True)
