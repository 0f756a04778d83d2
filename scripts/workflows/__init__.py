"""The example workflows as compact Python, and the frontend's JSON made from it. `build_workflows.py` writes them."""
