"""How the residual stream is used, and which terms of the path expansion there are.

- bandwidth: how much each part writes, and into which directions.
- expansion: all terms of the expansion with their sizes.
- importance: how much of the loss rests on the terms of each order, layer and path.
"""

__all__ = ["bandwidth", "expansion", "importance"]
