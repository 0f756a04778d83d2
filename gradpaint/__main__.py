"""Runs the `gradpaint` command as `python -m gradpaint`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
