"""Skip-trigrams: source ... destination -> out, read from one head's QK and OV circuits.

A destination attends to a source, and the source raises the logits of out tokens. The score of a
skip-trigram is max(QK, 0) * OV. QK is the score of the destination for the source, minus its mean
over keys; below 0 the destination does not attend. OV is the effect of the source on the out
token's logit, minus its mean over outs. Both are read from the token embedding. This is exact for a
one-layer model without norms; in other models it leaves out earlier heads and MLPs.
(Elhage et al. 2021, "Interpreting ... as skip-trigrams",
https://transformer-circuits.pub/2021/framework/index.html)
"""

from analyses.heads.skip_trigrams.all_heads import brackets, copying_table, strongest
from analyses.heads.skip_trigrams.bug_costs import both_ways, bug_cost
from analyses.heads.skip_trigrams.bugs import bug_grid, bugs, spelling_grid
from analyses.heads.skip_trigrams.completion import completion
from analyses.heads.skip_trigrams.effects import through_first_norm
from analyses.heads.skip_trigrams.kinds import PATTERNS, pattern_counts, triples
from analyses.heads.skip_trigrams.one_head import head_dump, positional_table, table, top_entries
from analyses.heads.skip_trigrams.splits import split_contrast, split_table, split_tokens

__all__ = [
    "PATTERNS",
    "both_ways",
    "brackets",
    "bug_cost",
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
