"""Inpainting of the user's own tensors at any size: what `gradpaint inpaint` does between reading and writing."""

import numpy as np
import torch


def reflect_pad(tensor, multiple):
    """(B, C, H, W) enlarged at the right and bottom by mirroring, to the next multiple of `multiple`."""
    height, width = tensor.shape[2:]
    rows, columns = -height % multiple, -width % multiple
    padded = np.pad(tensor.numpy(), ((0, 0), (0, 0), (0, rows), (0, columns)), mode="symmetric")
    return torch.from_numpy(padded)


def size_warning(height, width, trained):
    """A sentence if height x width is far from the size that the model was trained at, else None."""
    side = (height * width) ** 0.5
    if 0.7 <= side / trained <= 1.5:
        return None
    return (
        f"the image is {width}x{height} pixels, but the model was trained at {trained}x{trained}: "
        "expect repeated or missing structure. Resize the image near to that for better results"
    )


def inpaint_image(
    denoiser,
    image,
    mask,
    *,
    steps,
    seed=0,
    method="gradpaint",
    sampler="ddim",
    settings=None,
    device="cpu",
    progress=True,
    **options,
):
    """Repaint one image of any size with the library's sampler.

    image: (1, 3, H, W) in [-1, 1].  mask: (1, 1, H, W), 1 = repaint.  Both are mirrored up to the multiple that the
    model takes, and the result is cut back, with all that its record keeps.  method, options: see `sampling.methods`.
    Returns an `InpaintResult` whose image is (1, 3, H, W) on the CPU.
    """
    from .methods import get_method
    from .sigmas import spaced_sigmas

    height, width = image.shape[2:]
    y, hole = (reflect_pad(tensor, denoiser.size_multiple).to(device) for tensor in (image, mask))
    result = get_method(method).run(
        denoiser,
        y,
        hole,
        sigmas=spaced_sigmas(denoiser.sigmas, steps),
        seed=seed,
        sampler=sampler,
        settings=settings,
        progress=progress,
        image=y,
        **options,
    )
    cut = lambda t: None if t is None else t[..., :height, :width].cpu()
    result.image = cut(result.image)
    for step in result.record:
        step.x0_hat = cut(step.x0_hat)
        step.maps = {name: cut(values) for name, values in step.maps.items()}
    return result
