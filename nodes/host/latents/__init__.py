"""Converts IMAGE, MASK and LATENT to the method's tensors and back; makes decoders of latents."""
