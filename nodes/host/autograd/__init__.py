"""Makes a model that ComfyUI loaded differentiable in its input, for the time of one guided step."""
