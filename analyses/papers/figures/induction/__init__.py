"""The figures of "In-context Learning and Induction Heads" (Olsson et al. 2022).

https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html
"""

from analyses.papers.figures.induction import (
    ablation,
    before_after,
    compared,
    evaluators,
    heads,
    idealised,
    index,
    sequences,
    story,
    table,
    tokens,
    training,
    without_heads,
)

MODULES = (sequences, idealised, training, compared, tokens, before_after, ablation, without_heads,
           story, heads, table, index, evaluators)  # fmt: skip
__all__ = ["MODULES"]
