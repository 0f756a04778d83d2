"""The methods that GradPaint is compared with, and the bounds, one file each. `sampling.methods` imports them late."""
