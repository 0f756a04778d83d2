"""IMAGE, MASK and LATENT on their way to the method's tensors and back, and decoders of latents."""
