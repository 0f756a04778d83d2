"""Draws runs and results as pictures."""
