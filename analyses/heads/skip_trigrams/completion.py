"""Whether a model completes split words that it has seen whole: behaviour, not weights.

" Ralph" is one token, and "Ralph" without its space is R and alph. After " Ralph" ... R, a model
that completes split words expects alph more than after another word there. (Elhage et al. 2021,
"Skip-trigrams", https://transformer-circuits.pub/2021/framework/index.html)
"""

import torch
from jaxtyping import Bool, Float, Int
from pandas import DataFrame
from torch import Tensor

from analyses.heads.skip_trigrams.effects import vocabulary
from analyses.heads.skip_trigrams.splits import split_tokens
from circuits.model import GPT, check_predicts

BETWEEN = "\n"
"The text between the whole word and its first piece."
BATCH = 256


def completion(model: GPT, *, others: int = 4, seed: int = 0) -> DataFrame:
    """How much more a model expects the rest of each word of `split_tokens` after its first piece,
    if the context has the whole word: columns `source` (" Ralph"), `own` and `other`, the
    log-probabilities of the rest in nats with the word itself in the context and, in the mean of
    `others` words drawn at random, with another word there, and `gain`, the difference.

    The context is BOS, the word, a new line and the first piece; the words all share it. ValueError
    for a model without a tokenizer, or where the vocabulary splits no two words, and for `others`
    below 1 or not below the number of words.
    """
    check_predicts(model.cfg, "the completion of a word")
    words, text = list(split_tokens(model)["source"]), vocabulary(model)
    if not 1 <= others < len(words):
        raise ValueError(f"wanted 1 to {len(words) - 1} other words, one less than there are split "
                         f"words, got {others}")  # fmt: skip
    spelled = [text.to_tokens(word[1:], prepend_bos=False)[0] for word in words]
    rows, rest = _rows(model, [int(model.to_single_token(word)) for word in words], spelled)
    order = torch.randperm(len(words), generator=torch.Generator().manual_seed(seed))
    own, other = _of_rest(model, rows, rest), torch.zeros(len(words), dtype=torch.float64)
    for shift in range(1, others + 1):
        swapped = rows.clone()
        swapped[order, 1] = rows[order.roll(shift), 1]
        other += _of_rest(model, swapped, rest) / others
    values = {"own": own, "other": other, "gain": own - other}
    return DataFrame({"source": words, **{name: x.tolist() for name, x in values.items()}})


def _rows(
    model: GPT, words: list[int], spelled: list[Tensor]
) -> tuple[Int[Tensor, "word pos"], Bool[Tensor, "word pos"]]:
    """BOS, word, BETWEEN and pieces, filled up at the end, and where the rest of a word stands."""
    start = model.to_tokens(BETWEEN)[0].cpu()
    head, longest = len(start) + 1, max(map(len, spelled))
    rows = start[:1].repeat(len(words), head + longest)
    rest = torch.zeros(rows.shape, dtype=torch.bool)
    rows[:, 1], rows[:, 2:head] = torch.tensor(words), start[1:]
    for i, pieces in enumerate(spelled):
        rows[i, head : head + len(pieces)] = pieces.cpu()
        rest[i, head + 1 : head + len(pieces)] = True
    return rows, rest


def _of_rest(
    model: GPT, rows: Int[Tensor, "word pos"], rest: Bool[Tensor, "word pos"]
) -> Float[Tensor, " word"]:
    """The log-probability of the rest of each word, in nats."""
    found = []
    with torch.no_grad():
        for row, wanted in zip(rows.split(BATCH), rest.split(BATCH), strict=True):
            shown = row.to(model.W_E.device)
            logs = model(shown)[:, :-1].double().log_softmax(-1)
            right = logs.gather(-1, shown[:, 1:, None])[..., 0].cpu()
            found.append((right * wanted[:, 1:]).sum(-1))
    return torch.cat(found)
