"""Measuring inpainting results: metrics per sample, paired statistics, comparisons of methods."""
