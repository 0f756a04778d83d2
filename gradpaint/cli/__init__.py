"""The `gradpaint` command."""
