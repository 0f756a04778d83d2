"""What could make the method better at no more cost: each variant against the method as it is, paired.

    python benchmarks/variants.py --assets ../shared --state /tmp/variants --out benchmarks/results/variants.md

The same images, masks and noise for all; --split tune and test have different images, masks and noise, so that what
wins on the first can be tried on the second. 30 ddpm steps, the first half guided at alpha 0.08, unless the variant
says otherwise. Networks in bfloat16 autocast. Finished variants are kept in --state.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import bench_host  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, autocast  # noqa: E402

from gradpaint.evaluation.metrics import lpips, masked_mse, paired_difference, pooled_ratio, seam_energy  # noqa: E402
from gradpaint.method.gradient import loss_gradient  # noqa: E402
from gradpaint.method.known_region import combine_image, combine_noisy  # noqa: E402
from gradpaint.method.losses import alignment_loss, border_band, weighted_mean  # noqa: E402
from gradpaint.method.settings import AlignmentSettings  # noqa: E402
from gradpaint.method.step import normalise  # noqa: E402
from gradpaint.sampling.inpaint import ddpm_step  # noqa: E402
from gradpaint.sampling.sigmas import spaced_sigmas  # noqa: E402

STEPS = 30
SPLITS = {"tune": (1000, 7), "test": (2000, 11)}  # first seed of the masks, seed of the noise


@dataclass(frozen=True)
class Variant:
    """Defaults: the method as it is.

    start, fraction   shares of the run between which steps are guided.
    every, keep       of those only each every-th; the others move by `keep` times the last direction.
    dense             share of the run before which every one of them is guided all the same.
    momentum, renormalise   direction = momentum * last direction + (1 - momentum) * g_hat, then RMS 1 again or not.
    gain       step size times (1 + gain * cosine of this and the last g_hat), step after step, within 0.1 and 4.
    noisy_in   the model is given the known part at the state's noise level (eq. 4).
    late_noisy after guidance the known part is kept as the host does it (eq. 4 on the state as well).
    border     weight of the known pixels next to the hole in the masked MSE, beyond 1.
    travel     how often each of the first 3 steps is taken again, from the noise level before it.
    by_loss    step size times (RMS error of the known part over its first value) ** by_loss.
    fade       step size times (1 - share of guidance done) ** fade.
    clip       g_hat is limited to this quantile of its absolute values.
    blur       g_hat is blurred by a Gaussian of so many pixels.
    rule       alpha "even"; or, as large on average in the first half of a run of equal angles, in proportion to the
               "angle" (theta - theta_next, see method.step) or the "signal" (cos theta_next - cos theta); "fading":
               as the angle, times tan theta_next where that is below 1.
    sphere     the nudge keeps the distance between state and x0_hat.
    posterior  not eq. 9, but x0_hat moved by posterior * (1 + sigma^2) * J^T (y - x0_hat) (Pi-GDM).
    """

    alpha: float = 0.08
    start: float = 0.0
    fraction: float = 0.5
    every: int = 1
    dense: float = 0.0
    keep: float = 0.0
    momentum: float = 0.0
    renormalise: bool = False
    gain: float = 0.0
    noisy_in: bool = False
    late_noisy: bool = False
    border: float = 0.0
    travel: int = 0
    by_loss: float = 0.0
    fade: float = 0.0
    clip: float = 1.0
    blur: float = 0.0
    rule: str = "even"
    sphere: bool = False
    posterior: float = 0.0
    lambda_al: float = 0.1


BASE = "as it is"
VARIANTS = {
    BASE: Variant(),
    "no guidance": Variant(alpha=0.0),
    "alpha 0.04": Variant(alpha=0.04),
    "alpha 0.16": Variant(alpha=0.16),
    "no alignment loss": Variant(lambda_al=0.0),
    "momentum 0.5": Variant(momentum=0.5),
    "momentum 0.5, renormalised": Variant(momentum=0.5, renormalise=True),
    "momentum 0.8, renormalised": Variant(momentum=0.8, renormalise=True),
    "momentum 0.5, alpha 0.16": Variant(momentum=0.5, alpha=0.16),
    "step by agreement of gradients": Variant(gain=0.5),
    "noise-consistent known part in": Variant(noisy_in=True),
    "host's masking after guidance": Variant(late_noisy=True),
    "border pixels weigh up to 3": Variant(border=2.0),
    "first 3 steps taken twice": Variant(travel=1),
    "step by root of error": Variant(by_loss=0.5),
    "step by error": Variant(by_loss=1.0),
    "alpha 0.16 fading": Variant(alpha=0.16, fade=1.0),
    "clipped at 98%": Variant(clip=0.98),
    "blurred, 1 pixel": Variant(blur=1.0),
    "on the sphere": Variant(sphere=True),
    "Pi-GDM, weight 0.5": Variant(posterior=0.5),
    "Pi-GDM, weight 1": Variant(posterior=1.0),
    "every 2nd, kept between": Variant(every=2, keep=1.0),
    "every 2nd, kept between, to 75%": Variant(every=2, keep=1.0, fraction=0.75),
    "every 2nd, kept between, to 100%": Variant(every=2, keep=1.0, fraction=1.0),
    "every 2nd, kept between, to 100%, alpha 0.05": Variant(every=2, keep=1.0, fraction=1.0, alpha=0.05),
    "by angle": Variant(rule="angle"),
    "by angle, to 75%": Variant(rule="angle", fraction=0.75),
    "by angle, to 100%": Variant(rule="angle", fraction=1.0),
    "by signal": Variant(rule="signal"),
    "by signal, to 75%": Variant(rule="signal", fraction=0.75),
    "by signal, to 100%": Variant(rule="signal", fraction=1.0),
    "by signal, to 25%, every 2nd to 75%": Variant(rule="signal", dense=0.25, fraction=0.75, every=2),
    "fading": Variant(rule="fading"),
    "fading, to 75%": Variant(rule="fading", fraction=0.75),
    "fading, to 100%": Variant(rule="fading", fraction=1.0),
    "fading, to 25%, every 2nd to 75%": Variant(rule="fading", dense=0.25, fraction=0.75, every=2),
    "fading, to 45%": Variant(rule="fading", fraction=13 / 30),
    "fading, to 20%, every 2nd to 67%": Variant(rule="fading", dense=0.2, fraction=20 / 30, every=2),
    "fading, from 10% to 60%": Variant(rule="fading", start=0.1, fraction=0.6),
    "from 10% to 60%": Variant(start=0.1, fraction=0.6),
    "from 20% to 70%": Variant(start=0.2, fraction=0.7),
    "from 30% to 80%": Variant(start=0.3, fraction=0.8),
    "to 25%, every 2nd to 75%": Variant(dense=0.25, fraction=0.75, every=2),
    "to 40%": Variant(fraction=0.4),
    "to 75% (1.5 times the gradients)": Variant(fraction=0.75),
    "to 100% (twice the gradients)": Variant(fraction=1.0),
}


def share(rule: str, sigma: float, sigma_next: float) -> float:
    """Step size of one step over that of the average one of the first half of 30 steps of equal angle."""
    high, low = math.atan(sigma), math.atan(sigma_next)
    if rule == "angle":
        return (high - low) / (math.pi / 2 / STEPS)
    if rule == "signal":
        return (math.cos(low) - math.cos(high)) / (math.cos(math.pi / 4) / (STEPS / 2))
    if rule == "fading":
        return share("angle", sigma, sigma_next) * min(1.0, sigma_next)
    return 1.0


class Run:
    """One batch, start to end."""

    def __init__(self, variant: Variant, denoiser, levels: list[float], y: Tensor, mask: Tensor, seed: int):
        self.v, self.denoiser, self.levels, self.y, self.mask = variant, denoiser, levels, y, mask
        self.alignment = AlignmentSettings(lambda_al=variant.lambda_al)
        self.band = border_band(mask, self.alignment.border_width)
        self.first = torch.Generator().manual_seed(seed)
        self.later = torch.Generator().manual_seed(seed + 1)
        steps = len(levels) - 1
        self.begin, self.count = round(variant.start * steps), round(variant.fraction * steps) * (variant.alpha > 0)
        self.dense = round(variant.dense * steps)
        self.direction = self.g_hat = self.error = self.posterior = None
        self.gain = torch.ones(len(y), 1, 1, 1)
        self.evaluations = self.backwards = 0

    def draw(self) -> Tensor:
        return torch.randn(self.y.shape, generator=self.later)

    def image(self) -> Tensor:
        v, i, again = self.v, 0, 0
        x = torch.randn(self.y.shape, generator=self.first) * self.levels[0] + self.y * (1 - self.mask)
        while i < len(self.levels) - 1:
            sigma, sigma_next = self.levels[i : i + 2]
            state = combine_noisy(x, self.y, self.mask, self.draw(), 1.0, sigma) if v.noisy_in else x
            x0_hat = self.evaluate(state, sigma, i)
            x0_hat = combine_image(x0_hat.clamp(-1, 1), self.y, self.mask)
            new = ddpm_step(x, x0_hat, sigma, sigma_next, self.draw)
            new = self.nudged(new, x0_hat, sigma, sigma_next, i)
            if v.late_noisy and i >= self.count and sigma_next > 0:
                new = combine_noisy(new, self.y, self.mask, self.draw(), 1.0, sigma_next)
            if i < 3 and again < v.travel:
                again += 1
                x = new + self.draw() * (sigma**2 - sigma_next**2) ** 0.5
            else:
                again, x, i = 0, new, i + 1
        return torch.where(self.mask > 0, x.clamp(-1, 1), self.y)

    def evaluate(self, x: Tensor, sigma: float, i: int) -> Tensor:
        self.evaluations += 1
        if not self.guided(i):
            with torch.no_grad():
                return self.denoiser(x, torch.tensor(sigma))
        self.backwards += 1
        leaf = x.detach().requires_grad_(True)
        x0_hat = self.denoiser(leaf, torch.tensor(sigma))
        grad = self.gradient(leaf, x0_hat, sigma)
        x0_hat = x0_hat.detach()
        self.aim(self.shaped(normalise(grad)[0]))
        error = weighted_mean((x0_hat - self.y) ** 2, 1 - self.mask).sqrt().view(-1, 1, 1, 1)
        self.error = (error / (self.error[1] if self.error else error), self.error[1] if self.error else error)
        return x0_hat

    def guided(self, i: int) -> bool:
        return self.begin <= i < self.count and (i < self.dense or i % self.v.every == 0)

    def gradient(self, leaf: Tensor, x0_hat: Tensor, sigma: float) -> Tensor:
        if self.v.posterior:
            known = (1 - self.mask) * (x0_hat.detach() - self.y)
            (self.posterior,) = torch.autograd.grad(x0_hat, leaf, known)
            return self.posterior
        if self.v.border == 0:
            return loss_gradient(leaf, x0_hat, self.y, self.mask, self.alignment, sigma, self.band).grad
        estimate = x0_hat.detach().requires_grad_(True)
        near = torch.nn.functional.pad(self.mask, (8,) * 4, mode="replicate")
        near = torch.nn.functional.avg_pool2d(near, 17, 1)
        near = near / near.amax((1, 2, 3), keepdim=True).clamp_min(1e-6)
        loss = weighted_mean((estimate - self.y) ** 2, (1 - self.mask) * (1 + self.v.border * near))
        loss = loss + self.v.lambda_al * alignment_loss(
            estimate, self.y, self.mask, border=self.band, softness=self.alignment.softness
        )
        (cotangent,) = torch.autograd.grad(loss.sum(), estimate)
        return torch.autograd.grad(x0_hat, leaf, normalise(cotangent)[0] / max(sigma, 1))[0]

    def shaped(self, g_hat: Tensor) -> Tensor:
        if self.v.clip < 1:
            most = g_hat.abs().flatten(1).quantile(self.v.clip, dim=1).view(-1, 1, 1, 1)
            g_hat = normalise(g_hat.clamp(-most, most))[0]
        if self.v.blur:
            from torchvision.transforms.functional import gaussian_blur

            g_hat = normalise(gaussian_blur(g_hat, 9, self.v.blur))[0]
        return g_hat

    def aim(self, g_hat: Tensor) -> None:
        if self.v.gain and self.g_hat is not None:
            cosine = (g_hat * self.g_hat).mean((1, 2, 3), keepdim=True)
            self.gain = (self.gain * (1 + self.v.gain * cosine)).clamp(0.1, 4)
        self.g_hat, last = g_hat, self.direction
        if self.v.momentum and last is not None:
            g_hat = self.v.momentum * last + (1 - self.v.momentum) * g_hat
            self.direction = g_hat
            self.used = normalise(g_hat)[0] if self.v.renormalise else g_hat
        else:
            self.direction = self.used = g_hat

    def nudged(self, new: Tensor, x0_hat: Tensor, sigma: float, sigma_next: float, i: int) -> Tensor:
        v, own = self.v, self.guided(i)
        if not self.begin <= i < self.count or not (own or v.keep):
            return new
        scale = (1 + sigma_next**2) ** 0.5
        alpha = v.alpha * (1 - i / self.count) ** v.fade * (1.0 if own else v.keep) * share(v.rule, sigma, sigma_next)
        nudge = -alpha * scale * self.used * self.gain * self.error[0].clamp(max=1) ** v.by_loss
        if v.posterior:
            nudge = -v.posterior * (1 + sigma**2) * (1 - sigma_next / sigma) * self.posterior
            rms = nudge.square().mean((1, 2, 3), keepdim=True).sqrt()
            nudge = nudge * (0.3 * scale / rms).clamp(max=1)
        if not v.sphere or sigma_next == 0:
            return new + nudge
        rest = new - x0_hat
        longer = (rest + nudge).flatten(1).norm(dim=1) / rest.flatten(1).norm(dim=1)
        return x0_hat + (rest + nudge) / longer.view(-1, 1, 1, 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--system", choices=["anime64", "demo"], nargs="+", default=["anime64", "demo"])
    parser.add_argument("--split", choices=list(SPLITS), default="tune")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--state", type=Path, required=True, help="folder for finished variants")
    parser.add_argument("--out", type=Path, help="Markdown file")
    return parser.parse_args()


class Lab:
    """16 of anime64's images or 48 scenes of the bundled model, and that model."""

    def __init__(self, name: str, args):
        from gradpaint.masks import masks_above

        network, table, self.images = (_anime64 if name == "anime64" else _demo)(args)
        self.levels = spaced_sigmas(table, STEPS).double().tolist()
        first, self.seed = SPLITS[args.split]
        self.masks = masks_above(0.1, "thick", 64, 64, len(self.images), first_seed=first)

        getattr(network, "__self__", network).to(memory_format=torch.channels_last)

        def denoiser(x, sigma):
            with autocast("cpu", torch.bfloat16):
                return network(x, sigma).float()

        self.denoiser = denoiser

    def measure(self, variant: Variant, batch: int) -> dict:
        runs, images = [], []
        for start in range(0, len(self.images), batch):
            image, mask = self.images[start : start + batch], self.masks[start : start + batch]
            y = image.where(mask < 1, torch.zeros_like(image))
            runs.append(Run(variant, self.denoiser, self.levels, y, mask, self.seed + start))
            images.append(runs[-1].image())
        out = torch.cat(images)
        return {
            "lpips": lpips(out, self.images).tolist(),
            "mse": masked_mse(out, self.images, self.masks).tolist(),
            "seam": seam_energy(out, self.masks).tolist(),
            "true": seam_energy(self.images, self.masks).tolist(),
            "evaluations": runs[0].evaluations,
            "backwards": runs[0].backwards,
        }


def _anime64(args):
    import anime64_host

    files = anime64_host.image_files(args.assets, 32)
    files = files[:16] if args.split == "tune" else files[16:]
    from gradpaint.image.files import load_image

    sys.path.insert(0, str(args.assets / "anime64"))
    import anime64

    return anime64.load().denoise, anime64.sigmas()[: anime64_host.TOP], torch.cat([load_image(f) for f in files])


def _demo(args):
    from gradpaint.guided_diffusion import load_denoiser
    from gradpaint.models import bundled_model_path
    from gradpaint.models.scenes import HELD_OUT_SEEDS, landscapes

    denoiser = load_denoiser(bundled_model_path())
    first = 300 if args.split == "tune" else 500
    images = landscapes([HELD_OUT_SEEDS[first + i] for i in range(48)], 64)
    return denoiser, denoiser.sigmas[denoiser.sigmas <= 14.7], images


def table(name: str, args) -> str:
    lab, found = [], {}
    for variant in dict.fromkeys([BASE, *args.variants]):
        file = args.state / f"{name}_{args.split}_{variant}.json".replace(" ", "_").replace("%", "")
        if not file.is_file():
            lab = lab or [Lab(name, args)]
            args.state.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(lab[0].measure(VARIANTS[variant], args.batch)))
            print(file.stem, file=sys.stderr, flush=True)
        found[variant] = {key: torch.tensor(value) for key, value in json.loads(file.read_text()).items()}
    base, rows = found[BASE], []
    for variant, scores in found.items():
        cells = [variant]
        for metric in ("lpips", "mse"):
            paired = paired_difference(scores[metric], base[metric])
            z = f", z {paired.z:+.1f}" if math.isfinite(paired.z) and paired.error > 0 else ""
            cells += [f"{scores[metric].mean():.4f}", f"{paired.value:+.4f} +- {paired.error:.4f}{z}"]
        cells += [
            f"{pooled_ratio(scores['seam'], scores['true']):.2f}",
            f"{int(scores['evaluations'])} / {int(scores['backwards'])}",
        ]
        rows.append(cells)
    header = [
        "variant",
        "LPIPS",
        "minus the method's",
        "masked MSE",
        "minus the method's",
        "seam (1 is ideal)",
        "evaluations / backward",
    ]
    return f"## {name}, {len(base['lpips'])} images, {args.split}\n\n{bench_host.table(header, rows)}"


def main() -> None:
    args = arguments()
    os.environ["TORCH_HOME"] = str((args.assets / "torch_home").resolve())
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    texts = [table(name, args) for name in args.system]
    bench_host.save("\n\n".join(["# Variants of the method", *texts]), args.out)


if __name__ == "__main__":
    main()
