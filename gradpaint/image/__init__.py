"""Pixels before and after a run: masks, crops, fills, compositing, files. Nothing here knows about diffusion."""
