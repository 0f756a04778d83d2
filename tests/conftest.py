"""For all tests: one thread, and no test is skipped silently."""

import os
from collections import Counter

# Before torch is imported, here and in the servers that tests start: all tensors are tiny.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_terminal_summary(terminalreporter):
    """Say loudly what was not tested, and why."""
    skipped = (report.longrepr for report in terminalreporter.stats.get("skipped", []))
    reasons = Counter(where[2] if isinstance(where, tuple) else str(where) for where in skipped)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} NOT RUN: {reason.removeprefix('Skipped: ')}", yellow=True, bold=True)
