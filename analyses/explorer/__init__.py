"""One interactive page of all heads on a text.

- packed: the numbers of patterns as text for the page.
- Page: a page that a notebook shows and that can be saved.
- page: the page of one text.
- unpacked: the numbers that `packed` packed.
"""

from analyses.explorer.pages import Page, packed, page, unpacked

__all__ = [
    "Page", "packed", "page", "unpacked",
]  # fmt: skip
