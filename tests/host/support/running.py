"""The nodes by id, and a node run with its defaults."""

NODE_IDS = {
    "GradPaintLoadGuidedDiffusion": "Load Guided-Diffusion Model",
    "GradPaintMaskGenerator": "GradPaint Mask Generator",
    "GradPaintAlignmentLoss": "GradPaint Alignment Loss",
    "GradPaintEarlyStop": "GradPaint Early-Stop Scheduler",
    "GradPaintMemory": "GradPaint Memory",
    "GradPaintKSampler": "GradPaint KSampler",
    "GradPaintKSamplerAdvanced": "GradPaint KSampler (Advanced)",
    "GradPaintSampler": "GradPaint Sampler",
    "GradPaintApply": "Apply GradPaint",
    "GradPaintEncode": "GradPaint Inpaint Encode",
    "GradPaintComposite": "GradPaint Composite",
    "GradPaintPictures": "GradPaint Pictures",
    "GradPaintReport": "GradPaint Report",
    "GradPaintInpaintMethod": "Inpaint Method (baselines)",
    "GradPaintDemoScene": "GradPaint Demo Scene",
    "GradPaintLoadLatentDiffusion": "Load Latent Diffusion Model",
}


def defaults(node) -> dict:
    """The values that the frontend fills in for the node's widgets."""
    values = {}
    for item in node.GET_SCHEMA().inputs:
        if hasattr(item, "default"):
            options = getattr(item, "options", None)
            values[item.id] = item.default if item.default is not None or not options else options[0]
    return values


def run(node, **inputs):
    return node.execute(**{**defaults(node), **inputs}).args
