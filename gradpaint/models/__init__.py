"""Weights that ship with the package; see README.md in this folder."""

from pathlib import Path

BUNDLED_MODEL = "landscapes64.safetensors"


def bundled_model_path() -> Path:
    """Return the path of the demo model, a 64 x 64 guided-diffusion network trained on `gradpaint.models.scenes`.

    Raises:
        FileNotFoundError: the file is missing from the installation.
    """
    path = Path(__file__).with_name(BUNDLED_MODEL)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; reinstall gradpaint, or train the model with training/train_demo.py"
        )
    return path
