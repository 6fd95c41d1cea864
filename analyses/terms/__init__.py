"""The use of the residual stream, and the terms of the path expansion.

- bandwidth: how much each component writes and reads, and which directions are shared.
- deletion: heads whose output takes a term out of the stream.
- expansion: the terms of the expansion and their sizes.
- importance: how much of the loss rests on the terms of each order, layer and path.
"""

__all__ = ["bandwidth", "deletion", "expansion", "importance"]
