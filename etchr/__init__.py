"""ETCHR: think with images by training a dedicated image editor (arXiv 2605.23897).

Importing this package is cheap: it loads neither torch nor any model library.
"""

__version__ = "0.1.0"
