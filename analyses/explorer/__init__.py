"""One interactive page of all heads on a text.

- packed: an array of numbers in 8 bits, as text for the page.
- Page: a page that a notebook shows and that can be saved.
- page: the page of one text.
- ROLES: what the colour of each role means.
- unpacked: the array that `packed` packed.
"""

from analyses.explorer.pages import ROLES, Page, packed, page, unpacked

__all__ = [
    "ROLES", "Page", "packed", "page", "unpacked",
]  # fmt: skip
