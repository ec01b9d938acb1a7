"""What every test shares: one thread for each worker, and small data on disk."""

from __future__ import annotations

import os

# before torch is imported; a second thread would only wait for the other worker
os.environ.setdefault("OMP_NUM_THREADS", "1")
