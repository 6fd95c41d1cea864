"""Skip-trigrams: source ... destination -> out, read from one head's QK and OV circuits.

A head copies a source to where a destination token asks for it, and raises the out tokens. How much
is the product of two scores: the QK score of the destination for the source, less its mean over
keys and not below 0 (a head fetches only a source that is asked for), and the OV effect of the
source on the out token's logit, less its mean over outs. Both are read straight from the embedding:
exact for a one-layer model without norms, and without what earlier heads and MLPs add in any other.
(Elhage et al. 2021, "Interpreting ... as skip-trigrams",
https://transformer-circuits.pub/2021/framework/index.html)
"""

from analyses.heads.skip_trigrams.all_heads import brackets, copying_table, strongest
from analyses.heads.skip_trigrams.bugs import bug_grid, bugs, spelling_grid
from analyses.heads.skip_trigrams.completion import completion
from analyses.heads.skip_trigrams.effects import through_first_norm
from analyses.heads.skip_trigrams.kinds import PATTERNS, pattern_counts, triples
from analyses.heads.skip_trigrams.one_head import head_dump, positional_table, table, top_entries
from analyses.heads.skip_trigrams.splits import split_contrast, split_table, split_tokens

__all__ = [
    "PATTERNS",
    "brackets",
    "bug_grid",
    "bugs",
    "completion",
    "copying_table",
    "head_dump",
    "pattern_counts",
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
