"""GradPaint: training-free inpainting with any diffusion model, guided by gradients through the model itself.

This is the library, which never imports ComfyUI. Start at `gradpaint.sampling.inpaint.inpaint`.
"""

__version__ = "0.1.0"
