"""Reads and writes images and masks: images (1, 3, H, W) in [-1, 1], masks (1, 1, H, W) with 1 = repaint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .mask_tools import NEARLY

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # weights of red, green and blue, ITU-R BT.601


def _open(path: Path) -> Image.Image:
    """Read an image completely and turn it upright."""
    if not path.is_file():
        raise FileNotFoundError(f"no such image: {path}")
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a readable image (PNG, JPEG, WebP, TIFF, ...)") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def _flatten(image: Image.Image, background: float, path: Path) -> npt.NDArray[np.float32]:
    """Return RGB, (H, W, 3) in [0, 1], with the background, a gray value in [0, 1], where the image is transparent."""
    if image.mode.startswith("I"):  # 16-bit grayscale
        gray = np.asarray(image, dtype=np.float32) / 65535
        return np.repeat(gray.clip(0, 1)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError(f"{path} holds floating-point pixels; save it with 8 or 16 bits per channel")
    pixels = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    alpha = pixels[..., 3:]
    return np.asarray(pixels[..., :3] * alpha + background * (1 - alpha), dtype=np.float32)


def load_image(path: str | Path) -> Tensor:
    """Read an image.

    The EXIF orientation is applied, grayscale is repeated in three channels (16-bit grayscale keeps its precision),
    transparent areas become white, and only the first frame of an animation is read.

    Returns:
        (1, 3, H, W) float32 in [-1, 1].

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a readable image.
    """
    path = Path(path)
    pixels = _flatten(_open(path), 1.0, path)
    return torch.from_numpy(pixels * 2 - 1).permute(2, 0, 1)[None].contiguous()


def load_mask(path: str | Path, size: Sequence[int] | None = None, invert: bool = False) -> Tensor:
    """Read a mask: white is repainted, black and transparent are known, gray is a weight.

    Args:
        path: of the file.
        size: (H, W) that the mask must have.
        invert: repaint black instead.

    Returns:
        (1, 1, H, W) float32, 1 = repaint.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is unreadable, has another size, or leaves nothing to repaint or nothing known.
    """
    path = Path(path)
    mask = _flatten(_open(path), 0.0, path) @ LUMA
    mask = np.where(mask <= NEARLY, 0, np.where(mask >= 1 - NEARLY, 1, mask)).astype(np.float32)
    if size is not None and mask.shape != tuple(size):
        (height, width), (rows, columns) = size, mask.shape
        raise ValueError(
            f"mask {path} is {columns}x{rows} pixels, but the image is {width}x{height} (width x height); "
            "both must be the same"
        )
    if invert:
        mask = 1 - mask
    remedy = "drop the inversion" if invert else "invert it (--invert-mask)"
    if mask.max() == 0:
        raise ValueError(f"mask {path} has nothing to repaint: no white pixels. Paint the hole white, or {remedy}")
    if mask.min() == 1:
        raise ValueError(f"mask {path} covers the whole image: nothing is known. Leave some of it black, or {remedy}")
    return torch.from_numpy(mask)[None, None]


def to_uint8(image: Tensor) -> npt.NDArray[np.uint8]:
    """Convert an image, (3, H, W) or (1, 3, H, W) in [-1, 1], to (H, W, 3) uint8, rounded; one channel is repeated.

    Raises:
        ValueError: another shape.
    """
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"image has shape {tuple(image.shape)}; it must be (3, H, W) or (1, 3, H, W)")
    values = image.detach().to("cpu", torch.float32).add(1).mul(127.5).round().clamp(0, 255)
    return values.nan_to_num(0).to(torch.uint8).expand(3, *image.shape[1:]).permute(1, 2, 0).contiguous().numpy()


def save_image(image: Tensor | Image.Image, path: str | Path) -> Path:
    """Write a tensor (see `to_uint8`) or a PIL image as PNG, creating its folder, and return the path.

    Raises:
        ValueError: the path does not end in .png, or the tensor has another shape.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path} does not end in .png; results are saved as PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(to_uint8(image))
    picture.save(path)
    return path


def save_mask(mask: Tensor, path: str | Path) -> Path:
    """Write a mask (1, 1, H, W) as a grayscale PNG, white = repaint, and return the path."""
    gray = (mask.detach().cpu().float()[0, 0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return save_image(Image.fromarray(gray), path)
