"""What single heads do, from their patterns and from their weights.

- masks: the sources that a head with one rule would look at, for each behaviour.
- attention: how much attention follows such a rule; the role of each head.
- patterns: scores of patterns without any rule: entropy, sinks, fixed offsets.
- long_context: the same scores where a pattern does not fit into memory.
- induction: random tokens said twice: who finds the first copy, and what that saves.
- copying: whether an OV circuit raises the token that it reads.
- detectors: every score with the threshold above which a head counts as found.
- logit_effects: which tokens a head raises at each position.
- head_composition: how much each head reads of what earlier heads write.
- skip_trigrams: tables of a one-layer model, and the bugs that they must have.
"""

__all__ = ["attention", "copying", "detectors", "head_composition", "induction", "logit_effects",
           "long_context", "masks", "patterns", "skip_trigrams"]  # fmt: skip
