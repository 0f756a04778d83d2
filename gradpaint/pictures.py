"""Pictures of the method at work, as in the paper's Figs. 2, 3a and 9."""
from __future__ import annotations

from .plots import tradeoff_plot

__all__ = ["tradeoff_plot"]
