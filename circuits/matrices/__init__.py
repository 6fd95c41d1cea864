"""Products of matrices as lists of factors, for circuits too large to multiply out.

- at_least_single: a half-precision tensor in float32; any other tensor unchanged.
- blocks: slices that cover all rows, each within a bound of memory.
- chain: the product of several factors, in the order that takes the fewest operations.
- FactoredMatrix: a product of matrices; only `AB` multiplies it out.
- Largest: the largest entries of a product, with their rows and columns.
- Progress: a wrapper of a loop that shows its progress.
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
