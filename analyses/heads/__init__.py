"""The behaviour of single heads, from their patterns and from their weights.

- masks: for each behaviour, the sources that a head with this behaviour attends to.
- attention: the mean attention on these sources, and the role of each head.
- patterns: scores of patterns without a mask: entropy, sinks, fixed offsets.
- long_context: the same scores for patterns that do not fit into memory.
- induction: induction scores and losses on repeated random tokens.
- translation: induction through a cipher, a fixed permutation of the tokens.
- copying: whether an OV circuit raises the logit of the token that it reads.
- offset_preference: the distance that a rotary head prefers for any tokens, from weights alone.
- detectors: every score with the threshold above which a head is found.
- logit_effects: the effect of each head on the logit of the next token.
- head_composition: composition scores of each pair of heads, against chance.
- skip_trigrams: tables of skip-trigrams, and their bugs.
"""

__all__ = ["attention", "copying", "detectors", "head_composition", "induction", "logit_effects",
           "long_context", "masks", "offset_preference", "patterns", "skip_trigrams",
           "translation"]  # fmt: skip
