"""The data for training: text, windows of its tokens, and synthetic processes.

- Batches: the type of training data: rows of tokens for each step.
- BigramTriggers: the task of Bietti et al. 2023: bigrams, some of them fixed by the context.
- CategoryLines: the pattern-matching task of Olsson et al. 2022.
- CausalGraph: the task of Nichani et al. 2024: each token depends on an earlier one.
- chain_parents: a graph in which each position depends on the one before it.
- documents: the documents of text files.
- encode: the tokens of documents, one document after the other.
- file_marks: a hash of each text file, so that a change is noticed.
- hub_documents: the documents of a dataset on the Hugging Face Hub.
- MarkovChains: the task of Edelman et al. 2024: a new Markov chain for each row.
- pair_parents: a graph of pairs: each second position depends on the first.
- random_parents: a graph in which each position depends on any earlier one.
- repeated_tokens: rows of BOS and random tokens that are said several times.
- RepeatedTokens: the task of the model repeats-2l: random tokens said twice.
- Shards: tokenised documents in files that need not fit into memory.
- shards: tokenises documents once into a cache, as Shards.
- text_files: the text files that paths, folders and globs stand for.
- tokenize: the tokens of all documents, as a list.
- train_tokenizer: a byte-pair vocabulary trained on texts.
- Windows: documents as rows of the context's length.
"""

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
    "Batches", "BigramTriggers", "CategoryLines", "CausalGraph", "MarkovChains",
    "RepeatedTokens", "Shards", "Windows", "chain_parents", "documents", "encode",
    "file_marks", "hub_documents", "pair_parents", "random_parents", "repeated_tokens",
    "shards", "text_files", "tokenize", "train_tokenizer",
]  # fmt: skip
