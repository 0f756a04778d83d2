"""Settings from the methods' own papers, for the library, the nodes and the command alike. Imports nothing."""

DEFAULT_RESAMPLINGS = 10  # RePaint, with jumps of
DEFAULT_JUMP_LENGTH = 10  # steps
DEFAULT_STEP = 1.0  # MCG
DEFAULT_ZETA = 0.5  # DPS, inpainting
