"""Synthetic sequences on which induction forms; the process of each is known exactly.

RepeatedTokens: a random sequence and its repeat. BigramTriggers: Bietti et al. 2023
(https://arxiv.org/abs/2306.00802). MarkovChains: Edelman et al. 2024
(https://arxiv.org/abs/2402.11004). CausalGraph: Nichani et al. 2024
(https://arxiv.org/abs/2402.14735). CategoryLines: the pattern-matching task of Olsson et al. 2022
(https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html). All are
`Batches`: step and seed determine a batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class RepeatedTokens:
    """BOS + R + R. R is a sequence of uniform random tokens, from `shortest` to `longest` long; all
    rows of a batch have the same length."""

    def __init__(
        self, d_vocab: int, *, shortest: int, longest: int, bos: int = 0, seed: int = 0
    ) -> None:
        self.d_vocab, self.bos, self.seed = d_vocab, bos, seed
        self.shortest, self.longest = shortest, longest

    def batch(self, step: int, size: int) -> Int[Tensor, "batch pos"]:
        """[size 2n+1] tokens. The first R cannot be predicted, the second can."""
        rng = np.random.default_rng([self.seed, step])
        length = int(rng.integers(self.shortest, self.longest + 1))
        return repeated_tokens(self.d_vocab, length, size, bos=self.bos, rng=rng)


def repeated_tokens(
    d_vocab: int, length: int, batch: int, *, times: int = 2, bos: int = 0, rng: np.random.Generator
) -> Int[Tensor, "batch pos"]:
    """BOS and a sequence of `length` uniform random tokens (never BOS), `times` times over,
    [batch 1+times*length]."""
    drawn = rng.integers(0, d_vocab - 1, (batch, length))
    once = drawn + (drawn >= bos)
    return torch.from_numpy(np.concatenate([np.full((batch, 1), bos), *[once] * times], axis=1))


class BigramTriggers:
    """Bietti et al.: a bigram chain in which each trigger has a fixed successor in each sequence.

    `triggers` are the trigger tokens q_k, or their number; a number of triggers is drawn for each
    sequence from the unigram distribution, without replacement. The successors o_k are uniform. x_1
    is drawn from the unigram distribution. After x_t = q_k comes o_k. After any other token x_(t+1)
    is drawn from bigram[x_t]. Both distributions are the frequencies in `text` (in the paper the
    letters of Shakespeare, N = 65, T = 256, K = 5).
    """

    def __init__(
        self,
        text: Int[Tensor, " pos"],
        d_vocab: int,
        *,
        length: int = 256,
        triggers: int | Sequence[int] = 5,
        seed: int = 0,
    ) -> None:
        counts = torch.zeros(d_vocab, d_vocab, dtype=torch.float64)
        counts.index_put_((text[:-1], text[1:]), torch.ones(()).double(), accumulate=True)
        self.unigram = (text.bincount(minlength=d_vocab).double() / len(text)).numpy()
        seen = counts.sum(-1, keepdim=True)
        bigram = torch.where(seen > 0, counts / seen.clamp(min=1), torch.tensor(self.unigram))
        self.bigram = bigram.numpy()
        wanted = triggers if isinstance(triggers, int) else len(triggers)
        if not 1 <= wanted <= np.count_nonzero(self.unigram):
            raise ValueError(
                f"{wanted} triggers out of {np.count_nonzero(self.unigram)} tokens that occur"
            )
        self.length, self.triggers, self.seed = length, triggers, seed

    def batch(self, step: int, size: int) -> Int[Tensor, "batch pos"]:
        """[size length] tokens."""
        return torch.from_numpy(self._drawn(step, size)[0])

    def answers(self, step: int, size: int) -> Bool[Tensor, "batch pos"]:
        """True where the token follows a trigger that occurred before: only a model that reads the
        context can predict it. (The paper's in-context accuracy is the accuracy there.)"""
        rows, is_trigger = self._drawn(step, size)
        known = np.zeros(rows.shape, dtype=bool)
        for t in range(1, self.length):
            before = (rows[:, : t - 1] == rows[:, t - 1 : t]).any(1)
            known[:, t] = is_trigger[np.arange(size), rows[:, t - 1]] & before
        return torch.from_numpy(known)

    def _drawn(self, step: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows, and a mask of the triggers of each row [size d_vocab]."""
        rng, n = np.random.default_rng([self.seed, step]), len(self.unigram)
        every = np.arange(size)
        successor = np.full((size, n), -1)
        for row in every:
            chosen = self.triggers
            if isinstance(chosen, int):
                chosen = rng.choice(n, chosen, replace=False, p=self.unigram)
            successor[row, list(chosen)] = rng.integers(0, n, len(chosen))
        rows = np.empty((size, self.length), dtype=np.int64)
        rows[:, 0] = _sampled(rng, np.broadcast_to(self.unigram, (size, n)))
        for t in range(1, self.length):
            free = _sampled(rng, self.bigram[rows[:, t - 1]])
            forced = successor[every, rows[:, t - 1]]
            rows[:, t] = np.where(forced >= 0, forced, free)
        return rows, successor >= 0


class MarkovChains:
    """Edelman et al.: each sequence has its own Markov chain, whose rows are drawn from
    Dirichlet(1).

    The first tokens are drawn from the chain's stationary distribution. With `order` n the next
    token depends on the last n tokens (an n+1-gram). `doubly_stochastic` is the paper's control:
    the stationary distribution is uniform, so counts of single tokens carry no information.
    """

    def __init__(
        self,
        d_vocab: int = 2,
        *,
        length: int = 100,
        order: int = 1,
        doubly_stochastic: bool = False,
        seed: int = 0,
    ) -> None:
        if order < 1 or length <= order:
            raise ValueError(f"order must be from 1 to length - 1, got {order} for {length}")
        if doubly_stochastic and order > 1:
            raise ValueError(f"doubly_stochastic needs order 1, got {order}")
        self.d_vocab, self.length, self.order, self.seed = d_vocab, length, order, seed
        self.doubly_stochastic = doubly_stochastic

    def transitions(self, step: int, size: int) -> Float[Tensor, "batch context d_vocab"]:
        """The chain of each row of the batch: the probabilities of the next token. The index of a
        context is its `order` tokens read as one number in base d_vocab, oldest token first."""
        rng = np.random.default_rng([self.seed, step, 0])
        k = self.d_vocab
        chains = rng.dirichlet(np.ones(k), (size, k**self.order))
        for _ in range(200 if self.doubly_stochastic else 0):  # Sinkhorn's iteration
            chains /= chains.sum(-2, keepdims=True)
            chains /= chains.sum(-1, keepdims=True)
        return torch.from_numpy(chains)

    def batch(self, step: int, size: int) -> Int[Tensor, "batch pos"]:
        """[size length] tokens."""
        chains, k = self.transitions(step, size).numpy(), self.d_vocab
        rng, every = np.random.default_rng([self.seed, step, 1]), np.arange(size)
        contexts = k**self.order
        moves = np.zeros((size, contexts, contexts))  # probabilities from context to context
        for context in range(contexts):
            for token in range(k):
                moves[:, context, (context * k + token) % contexts] = chains[:, context, token]
        context = _sampled(rng, _stationary(moves))
        rows = [context // k**place % k for place in reversed(range(self.order))]
        while len(rows) < self.length:
            rows.append(_sampled(rng, chains[every, context]))
            context = (context * k + rows[-1]) % contexts
        return torch.from_numpy(np.stack(rows, axis=1))


class CausalGraph:
    """Nichani et al.: the token at each position is drawn from its parent's token, by a Markov
    chain that each sequence has for itself.

    `parents[i]` is a position before i, or None for a root. The chain's rows are drawn from
    Dirichlet(alpha), and roots from its stationary distribution. The token at the last position is
    uniform, whatever its parent. One more token, the target, is drawn from its row of the chain.
    """

    def __init__(
        self,
        parents: Sequence[int | None],
        d_vocab: int = 10,
        *,
        alpha: float = 0.1,
        seed: int = 0,
    ) -> None:
        for position, parent in enumerate(parents):
            if parent is not None and not 0 <= parent < position:
                raise ValueError(f"the parent of position {position} must be before it: {parent}")
        if not parents:
            raise ValueError("a graph needs at least one position")
        self.parents, self.d_vocab, self.alpha, self.seed = tuple(parents), d_vocab, alpha, seed

    def transitions(self, step: int, size: int) -> Float[Tensor, "batch d_vocab d_vocab"]:
        """The chain of each row of the batch: the probabilities of a child's token."""
        rng = np.random.default_rng([self.seed, step, 0])
        chains = rng.dirichlet(np.full(self.d_vocab, self.alpha), (size, self.d_vocab))
        return torch.from_numpy(chains)

    def batch(self, step: int, size: int) -> Int[Tensor, "batch pos"]:
        """[size len(parents)+1] tokens, the last of which is the target."""
        chains, every = self.transitions(step, size).numpy(), np.arange(size)
        rng, roots = np.random.default_rng([self.seed, step, 1]), _stationary(chains)
        rows = np.empty((size, len(self.parents) + 1), dtype=np.int64)
        for position, parent in enumerate(self.parents):
            odds = roots if parent is None else chains[every, rows[:, parent]]
            rows[:, position] = _sampled(rng, odds)
        rows[:, -2] = rng.integers(0, self.d_vocab, size)
        rows[:, -1] = _sampled(rng, chains[every, rows[:, -2]])
        return torch.from_numpy(rows)


class CategoryLines:
    """Olsson et al., pattern matching: lines "(month) (animal): 0" with a label for each pair of
    kinds.

    A line is five tokens: a word of kind i (0 or 1), a word of kind 2 + j (2 or 3), ":", the label
    and a new line. No word occurs twice in a row of the batch, so a model must know the *kinds* of
    words. In a share `fixed` of the rows category (i, j) has the label 2i + j, as in the paper. In
    the other rows labels are shuffled, so a model must read them from earlier lines.
    Tokens: 0 is ":", 1 a new line, 2 to 5 the labels, then come `words` tokens of each kind.
    """

    COLON, LINE_END, LABELS, WORDS = 0, 1, 2, 6
    PER_LINE, COLON_AT = 5, 2

    def __init__(
        self, *, lines: int = 8, words: int = 8, fixed: float = 0.0, seed: int = 0
    ) -> None:
        if not 1 <= lines <= words:
            raise ValueError(f"no word comes twice: lines must be 1 to words={words}, got {lines}")
        if not 0 <= fixed <= 1:
            raise ValueError(f"fixed must be a share of the rows, from 0 to 1; got {fixed}")
        self.lines, self.words, self.fixed, self.seed = lines, words, fixed, seed
        self.d_vocab = self.WORDS + 4 * words

    def categories(self, step: int, size: int) -> Int[Tensor, "batch line"]:
        """2i + j for a line with words of the kinds i (0 or 1) and 2 + j."""
        rng = np.random.default_rng([self.seed, step, 0])
        return torch.from_numpy(rng.integers(0, 4, (size, self.lines)))

    def batch(self, step: int, size: int) -> Int[Tensor, "batch pos"]:
        """[size 5*lines] tokens."""
        category = self.categories(step, size).numpy()
        rng, row = np.random.default_rng([self.seed, step, 1]), np.arange(size)[:, None]
        labels = rng.random((size, 4)).argsort(-1)
        labels = np.where(rng.random((size, 1)) < self.fixed, np.arange(4), labels)
        order = rng.random((size, 4, self.words)).argsort(-1)
        tokens = np.empty((size, self.lines, self.PER_LINE), dtype=np.int64)
        for place, kind in enumerate((category // 2, 2 + category % 2)):
            same = kind[:, :, None] == kind[:, None, :]
            used = np.tril(same, -1).sum(-1)  # words of this kind in the lines before
            tokens[:, :, place] = self.WORDS + kind * self.words + order[row, kind, used]
        tokens[:, :, 2] = self.COLON
        tokens[:, :, 3] = self.LABELS + labels[row, category]
        tokens[:, :, 4] = self.LINE_END
        return torch.from_numpy(tokens.reshape(size, -1))


def chain_parents(length: int) -> list[int | None]:
    """The parents of a Markov chain: each position's parent is the position before it."""
    return [None, *range(length - 1)]


def pair_parents(length: int) -> list[int | None]:
    """The parents of pairs: the first position of a pair is a root and the parent of the second, as
    input and output of an in-context example."""
    return [position - 1 if position % 2 else None for position in range(length)]


def random_parents(length: int, *, seed: int = 0) -> list[int | None]:
    """Random parents: each position's parent is uniform among the positions before it."""
    rng = np.random.default_rng(seed)
    return [None, *(int(rng.integers(0, position)) for position in range(1, length))]


def _sampled(rng: np.random.Generator, odds: np.ndarray) -> np.ndarray:
    """One random index per row of probabilities."""
    drawn = rng.random(odds.shape[:-1])[..., None] >= odds.cumsum(-1)
    return np.minimum(drawn.sum(-1), odds.shape[-1] - 1)


def _stationary(chains: np.ndarray) -> np.ndarray:
    """pi with pi P = pi for each chain P: pi = 1 (I - P + ones)^-1. P is mixed with 1e-9 of the
    uniform chain, so that pi is unique for a reducible chain too."""
    n = chains.shape[-1]
    mixed = (1 - 1e-9) * chains + 1e-9 / n
    system = np.eye(n) - mixed + 1
    pi = np.linalg.solve(np.swapaxes(system, -1, -2), np.ones((*chains.shape[:-1], 1)))[..., 0]
    pi = pi.clip(min=0)
    return pi / pi.sum(-1, keepdims=True)
