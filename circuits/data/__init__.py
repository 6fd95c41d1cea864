"""Training data: text, windows of its tokens, and synthetic processes.

- Batches: the type of training data: rows of tokens for each step.
- BigramTriggers: the task of Bietti et al. 2023: bigrams, and triggers with a fixed successor.
- CategoryLines: the pattern-matching task of Olsson et al. 2022.
- CausalGraph: the task of Nichani et al. 2024: each token depends on an earlier one.
- Ciphered: a random passage, and the same passage under a fixed permutation of tokens.
- chain_parents: a graph in which each position depends on the one before it.
- documents: the documents of text files.
- encode: the tokens of documents, one document after the other.
- file_marks: a hash of each text file.
- hub_documents: the documents of a dataset on the Hugging Face Hub.
- MarkovChains: the task of Edelman et al. 2024: a new Markov chain for each row.
- pair_parents: a graph of pairs: the second position of a pair depends on the first.
- random_parents: a graph in which each position depends on a random earlier one.
- repeated_tokens: rows of BOS and a random sequence that is repeated.
- RepeatedTokens: the task of the model repeats-2l: a random sequence and its repeat.
- Shards: tokenised documents in files, which may be larger than memory.
- shards: tokenises documents once into a cache folder, as Shards.
- text_files: the text files of paths, folders and globs.
- tokenize: the tokens of all documents, as a list.
- train_tokenizer: a byte-pair vocabulary trained on texts.
- Windows: documents cut into rows of n_ctx tokens after BOS.
"""

from circuits.data.ciphers import Ciphered
from circuits.data.shards import Shards, file_marks, shards
from circuits.data.synthetic import (
    BigramTriggers,
    CategoryLines,
    CausalGraph,
    MarkovChains,
    RepeatedTokens,
    chain_parents,
    pair_parents,
    random_parents,
    repeated_tokens,
)
from circuits.data.text import documents, hub_documents, text_files
from circuits.data.windows import Batches, Windows, encode, tokenize, train_tokenizer

__all__ = [
    "Batches", "BigramTriggers", "CategoryLines", "CausalGraph", "Ciphered", "MarkovChains",
    "RepeatedTokens", "Shards", "Windows", "chain_parents", "documents", "encode",
    "file_marks", "hub_documents", "pair_parents", "random_parents", "repeated_tokens",
    "shards", "text_files", "tokenize", "train_tokenizer",
]  # fmt: skip
