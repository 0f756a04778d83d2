"""Measuring inpainting results: scores per image, paired statistics, comparisons of methods, the paper's tables."""
