"""ETCHR: think with images by training a dedicated image editor (arXiv 2605.23897).

Importing this package is cheap: it loads neither torch nor any model library.
"""

import os

# Threads of torch that wait for each other would spin, and on a hyper-threaded or shared CPU starve the one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
