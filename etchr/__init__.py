"""ETCHR: think with images by training a dedicated image editor (arXiv 2605.23897).

Importing this package is cheap: it loads neither torch nor any model library.
"""

import os

# Threads of torch that wait for each other would spin, and on a hyper-threaded or shared CPU starve the one that works.
# A short while of it (GNU's runtime counts loops) is worth its price: nano's operators follow each other that closely.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

__version__ = "0.1.0"
