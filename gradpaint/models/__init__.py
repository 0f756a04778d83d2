"""Weights that come with the package; README.md beside this file describes them."""

from pathlib import Path

BUNDLED_MODEL = "landscapes64.safetensors"


def bundled_model_path() -> Path:
    """Path of the demonstration model, a 64 x 64 guided-diffusion network trained on `gradpaint.models.scenes`.

    Raises:
        FileNotFoundError: the installation lacks the file.
    """
    path = Path(__file__).with_name(BUNDLED_MODEL)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; install gradpaint again, or train it with training/train_demo.py")
    return path
