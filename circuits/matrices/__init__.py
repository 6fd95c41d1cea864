"""Products of matrices kept apart, for circuits too large to multiply out.

- at_least_single: a half-precision tensor in float32; any other tensor as it is.
- blocks: slices that cover all rows, each within a bound of memory.
- chain: the product of several factors, in the order that takes the fewest operations.
- FactoredMatrix: a product of matrices that is never multiplied out unless one asks for it.
- Largest: the largest entries of a product, with their rows and columns.
- Progress: a function that long work calls to show how far it is.
- SVD: the singular value decomposition: U, S and Vt.
- svd: the singular value decomposition of a product.
"""

from circuits.matrices.factored import FactoredMatrix
from circuits.matrices.products import SVD, Largest, Progress, at_least_single, blocks, chain, svd

__all__ = [
    "SVD",
    "FactoredMatrix",
    "Largest",
    "Progress",
    "at_least_single",
    "blocks",
    "chain",
    "svd",
]  # fmt: skip
