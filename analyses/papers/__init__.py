"""The papers' figures, reproduced.

- figures: one function for each figure; it returns the picture and its verdict.
- toys: small models that some figures train on the spot.
- report: all figures as one page.
"""

__all__ = ["figures", "report", "toys"]
