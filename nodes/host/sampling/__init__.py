"""A guided run inside ComfyUI, and the ways into one."""
