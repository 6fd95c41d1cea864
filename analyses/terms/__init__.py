"""How the residual stream is used, and which terms of the path expansion there are.

- bandwidth: how much each component writes, and into which directions.
- deletion: heads whose output takes a term out of the stream.
- expansion: all terms of the expansion with their sizes.
- importance: how much of the loss rests on the terms of each order, layer and path.
"""

__all__ = ["bandwidth", "deletion", "expansion", "importance"]
