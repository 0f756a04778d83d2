"""Everything that touches ComfyUI's internals; nothing else in the pack does."""
