"""The papers' figures, reproduced.

- figures: the record of each figure: its claim, and the function that judges and draws it.
- toys: small models that some figures train on the spot.
- report: all figures as one page.
"""

__all__ = ["figures", "report", "toys"]
