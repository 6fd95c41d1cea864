"""The figures of "A Mathematical Framework for Transformer Circuits" (Elhage et al. 2021).

https://transformer-circuits.pub/2021/framework/index.html. MODULES are in the order of the paper.
"""

from analyses.papers.figures.framework import (
    architecture,
    bandwidth,
    composition,
    copying,
    importance,
    induction,
    kinds,
    mlps,
    one_layer,
    positions,
    tables,
    two_layers,
)

MODULES = (architecture, bandwidth, one_layer, tables, kinds, positions, copying, two_layers,
           composition, induction, importance, mlps)  # fmt: skip
__all__ = ["MODULES"]
