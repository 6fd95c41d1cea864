"""The figures of "A Mathematical Framework for Transformer Circuits" (Elhage et al. 2021).

https://transformer-circuits.pub/2021/framework/index.html. MODULES are in the order of the paper.
"""

from analyses.papers.figures.framework import (
    architecture,
    bandwidth,
    composition,
    copying,
    dumps,
    erratum,
    importance,
    induction,
    mlps,
    one_layer,
    tables,
    two_layers,
)

MODULES = (architecture, bandwidth, one_layer, tables, dumps, copying, two_layers, composition,
           induction, importance, erratum, mlps)  # fmt: skip
__all__ = ["MODULES"]
