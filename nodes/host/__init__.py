"""What touches ComfyUI's internals, and nothing else in the pack does."""
