"""The paper's image-space models: networks of openai/guided-diffusion and their checkpoints."""

from .config import ModelConfig, UNetConfig
from .unet import UNet

__all__ = ["ModelConfig", "UNet", "UNetConfig"]
