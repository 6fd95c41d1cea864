"""Small models of the papers on how induction forms, each trained on its own generator in seconds.

bietti: a model whose weights are memories, and the order in which they are learned. edelman: Markov
chains in context. nichani: a first layer that is a causal graph. pattern_matching: lines that are
alike in kind and share no word. cipher: passages followed by themselves in another language. All
descend by one loop (descent); the generators are those of circuits.data.
"""
