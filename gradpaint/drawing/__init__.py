"""Runs and results as pictures."""
