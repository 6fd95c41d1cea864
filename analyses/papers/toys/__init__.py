"""Small models of the papers on how induction forms, each trained on its own generator in seconds.

bietti: a model whose weights are memories, and the order in which it learns them. edelman: Markov
chains in context. nichani: a first layer that becomes a causal graph. pattern_matching: lines of
the same category that share no word. cipher: passages, each followed by itself in another language.
One loop trains them all (descent). The generators come from circuits.data.
"""
