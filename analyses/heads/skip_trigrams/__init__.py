"""Skip-trigrams: source ... destination -> out, read from one head's QK and OV circuits.

A head copies a source to where a destination token asks for it, and raises the out tokens. How much
is the product of two scores: the QK score of the destination for the source, less its mean over
keys and not below 0 (what is not asked for is not fetched), and the OV effect of the source on the
out token's logit, less its mean over outs. Both are read straight from the embedding: exact for a
one-layer model without norms, and without what earlier heads and MLPs add in any other. (Elhage et
al. 2021, "Interpreting ... as skip-trigrams",
https://transformer-circuits.pub/2021/framework/index.html)
"""

from analyses.heads.skip_trigrams.bugs import bug_grid, bugs, spelling_grid
from analyses.heads.skip_trigrams.dump import brackets, head_dump, positional_table, strongest
from analyses.heads.skip_trigrams.patterns import PATTERNS, patterns, triples
from analyses.heads.skip_trigrams.scores import through_first_norm
from analyses.heads.skip_trigrams.splits import split_contrast, split_table, split_tokens
from analyses.heads.skip_trigrams.tables import copying_table, table, top_entries

__all__ = [
    "PATTERNS",
    "brackets",
    "bug_grid",
    "bugs",
    "copying_table",
    "head_dump",
    "patterns",
    "positional_table",
    "spelling_grid",
    "split_contrast",
    "split_table",
    "split_tokens",
    "strongest",
    "table",
    "through_first_norm",
    "top_entries",
    "triples",
]
