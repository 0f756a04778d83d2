"""Images and masks between files and tensors: images (1, 3, H, W) in [-1, 1], masks (1, 1, H, W) with 1 = repaint."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

NEARLY = 4 / 255  # mask values this close to black or white are meant to be black or white (JPEG noise)


def _open(path):
    """PIL image in upright orientation, fully read."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such image: {path}")
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an image that can be read (PNG, JPEG, WebP, TIFF, ...)") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def _flatten(image, background, path):
    """float32 (H, W, 3) in [0, 1]; transparent parts become the background, a grey value in [0, 1]."""
    if image.mode.startswith("I"):  # 16-bit greyscale
        grey = np.asarray(image, dtype=np.float32) / 65535
        return np.repeat(grey.clip(0, 1)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError(f"{path} holds floating-point pixels; save it with 8 or 16 bits per channel")
    pixels = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    alpha = pixels[..., 3:]
    return pixels[..., :3] * alpha + background * (1 - alpha)


def load_image(path):
    """Read an image as float32 (1, 3, H, W) in [-1, 1].

    Follows the EXIF orientation; greyscale is repeated into three channels; transparent parts become white; 16-bit
    greyscale keeps its precision; of an animation the first frame is taken.
    Raises FileNotFoundError, or ValueError for a file that is not a readable image.
    """
    pixels = _flatten(_open(path), 1.0, path)
    return torch.from_numpy(pixels * 2 - 1).permute(2, 0, 1)[None].contiguous()


def load_mask(path, size=None, invert=False):
    """Read a mask as float32 (1, 1, H, W): white (1) is repainted, black or transparent (0) is known, grey is a weight.

    size: (H, W) that the mask must have.  invert: black is repainted instead.
    Raises FileNotFoundError, or ValueError for an unreadable file, another size, or a mask that leaves nothing to
    repaint or nothing known.
    """
    pixels = _flatten(_open(path), 0.0, path)
    mask = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # luma, ITU-R BT.601
    mask = np.where(mask <= NEARLY, 0, np.where(mask >= 1 - NEARLY, 1, mask)).astype(np.float32)
    if size is not None and mask.shape != tuple(size):
        (height, width), (rows, columns) = size, mask.shape
        raise ValueError(
            f"mask {path} is {columns}x{rows} pixels, but the image is {width}x{height} (width x height); "
            "both must be the same"
        )
    if invert:
        mask = 1 - mask
    swap = "drop the inversion" if invert else "invert it (--invert-mask)"
    if mask.max() == 0:
        raise ValueError(f"mask {path} has nothing to repaint: no white pixels. Paint the hole white, or {swap}")
    if mask.min() == 1:
        raise ValueError(f"mask {path} covers the whole image: nothing is known. Leave some of it black, or {swap}")
    return torch.from_numpy(mask)[None, None]


def to_uint8(image):
    """(3, H, W) or (1, 3, H, W) tensor in [-1, 1] -> uint8 array (H, W, 3), rounded; also for one channel (masks)."""
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"image has shape {tuple(image.shape)}; it must be (3, H, W) or (1, 3, H, W)")
    values = image.detach().to("cpu", torch.float32).add(1).mul(127.5).round().clamp(0, 255)
    return values.nan_to_num(0).to(torch.uint8).expand(3, *image.shape[1:]).permute(1, 2, 0).contiguous().numpy()


def save_image(image, path):
    """Write a tensor, see `to_uint8`, or a PIL image as PNG; makes the folder. Returns the path."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path} does not end in .png; results are saved as PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(to_uint8(image))
    picture.save(path)
    return path


def save_mask(mask, path):
    """Write a mask (1, 1, H, W) as greyscale PNG, white = repaint. Returns the path."""
    grey = (mask.detach().cpu().float()[0, 0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return save_image(Image.fromarray(grey), path)
