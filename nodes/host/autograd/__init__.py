"""Makes a model that ComfyUI loaded differentiable with respect to its input while a guided step runs."""
