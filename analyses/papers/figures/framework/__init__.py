"""The figures of "A Mathematical Framework for Transformer Circuits" (Elhage et al. 2021).

https://transformer-circuits.pub/2021/framework/index.html
"""

from analyses.papers.figures.framework import (
    architecture,
    composition,
    dumps,
    erratum,
    expansion,
    heads,
    importance,
    mlps,
    prompt,
    tables,
    text,
)

__all__ = [
    "architecture",
    "composition",
    "dumps",
    "erratum",
    "expansion",
    "heads",
    "importance",
    "mlps",
    "prompt",
    "tables",
    "text",
]
