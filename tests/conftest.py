"""Before torch is imported, here and in the servers that tests start: one thread, since all tensors are tiny."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
