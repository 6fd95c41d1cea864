"""How much a later head reads, through Q, K or V, of what an earlier head writes.

The score of a writer's W_OV and the matrix M that a reader reads it with (W_QK for Q, W_QK^T for K,
its own W_OV for V) is ||W_OV M|| / (||W_OV|| ||M||), in Frobenius norms: 1 if all that is written
is read as strongly as can be, 0 if nothing of it is. (Elhage et al. 2021, "Virtual weights and
composition", https://transformer-circuits.pub/2021/framework/index.html)

||A M||^2 = <A^T A, M M^T>: the score of a pair is one inner product of two Gram matrices [d_model
d_model], one for each writer and one for each way to read. So all pairs are one matrix product.
Norms are folded into what reads from them (see algebra).
"""

from collections.abc import Iterator

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.decomposition.algebra import reads, writes
from circuits.matrices import FactoredMatrix, at_least_single
from circuits.model import GPT, GPTConfig

VIA = ("Q", "K", "V")
"How a head can read from an earlier one, in the order of the first dim of the scores."

Pairs = Float[Tensor, "via writer_layer writer reader_layer reader"]

Gram = tuple[Float[Tensor, "layer head e d_model"], Float[Tensor, "layer head e d_model"]]
"A Gram matrix [d_model d_model] of each head, as left^T right."

STRIP = 64
"Rows of the Gram matrices that are at work at a time."


def scores(model: GPT) -> Pairs:
    """||W_OV M|| / (||W_OV|| ||M||) of every head with every later one through Q, K and V, in
    [0, 1]; NaN where the writer's layer is not the earlier one, 0 where a head is zero.

    `chance` is what random matrices give. Exact to the square root of the precision near 0. Take
    it under torch.no_grad() for large models: it then holds `STRIP` rows of the Gram matrices.
    ValueError for a weight that is not finite. In float32 at least.
    """
    W_Q, W_K, W_V, W_O = _heads(model)
    written = W_O, W_V.mT @ W_V @ W_O  # A^T A = W_O^T (W_V^T W_V) W_O, left and right factor
    ways = ((W_Q.mT, W_K.mT @ W_K @ W_Q.mT), (W_K.mT, W_Q.mT @ W_Q @ W_K.mT),
            (W_V.mT, W_O @ W_O.mT @ W_V.mT))  # fmt: skip
    squared = _inner_products(written, ways)
    writer, *readers = ((left * right).sum((-2, -1)) for left, right in (written, *ways))
    size = einsum(writer, torch.stack(readers), "wl w, via rl r -> via wl w rl r")  # norms^2
    return _root(squared, size).masked_fill(~_earlier(model, size), torch.nan)


def _inner_products(written: Gram, ways: tuple[Gram, ...]) -> Pairs:
    """<A^T A, M M^T> of every writer with every later reader; other entries mean nothing.

    Gram matrices are symmetric: the entries on and right of the diagonal do, those right of it
    twice.
    """
    n_layers, n_heads, _, d_model = written[0].shape
    total = written[0].new_zeros(len(ways), n_layers, n_heads, n_layers, n_heads)
    writer = written[0][:-1], written[1][:-1]  # the last layer writes to no head
    for start in range(0, d_model, STRIP):
        once = _rows(writer, start, twice=True)
        for via, (left, right) in enumerate(ways):
            again = _rows((left[1:], right[1:]), start)  # the first layer reads from none
            for writers, readers in _earlier_by_later(0, n_layers):
                reading = again[readers.start - 1 : readers.stop - 1]
                products = once[writers].flatten(0, 1) @ reading.flatten(0, 1).T
                products = products.unflatten(0, (-1, n_heads)).unflatten(-1, (-1, n_heads))
                total[via, writers, :, readers] += products
    return total


def _earlier_by_later(first: int, last: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of layers, as few as can be, that together pair each layer with every later one."""
    if last - first > 1:
        middle = (first + last) // 2
        yield slice(first, middle), slice(middle, last)
        yield from _earlier_by_later(first, middle)
        yield from _earlier_by_later(middle, last)


def _rows(gram: Gram, start: int, *, twice: bool = False) -> Float[Tensor, "layer head entries"]:
    """A strip of rows of left^T right from the diagonal on; `twice` doubles what is right of it."""
    left, right = gram[0][..., start : start + STRIP], gram[1][..., start:]
    rows = left.contiguous().mT @ right
    if twice:  # but not the square on the diagonal, where both halves are there
        rows[..., STRIP:] *= 2
    return rows.flatten(-2)


def chance(cfg: GPTConfig) -> float:
    """1 / sqrt(d_model), the score of random matrices: E ||A M||^2 = ||A||^2 ||M||^2 / d_model for
    any A and M of which one is turned at random, so this is the exact root mean square. The mean
    lies a little below it (by 0.0004 for d_model 64)."""
    return cfg.d_model**-0.5


def random_scores(cfg: GPTConfig, n: int = 300, *, seed: int = 0) -> Float[Tensor, " n"]:
    """Scores of n pairs of random heads of this shape (every weight Gaussian): for quantiles."""
    generator = torch.Generator().manual_seed(seed)

    def product() -> FactoredMatrix:
        shapes = (cfg.d_model, cfg.d_head), (cfg.d_head, cfg.d_model)
        return FactoredMatrix(*(torch.randn(shape, generator=generator) for shape in shapes))

    def score(A: FactoredMatrix, M: FactoredMatrix) -> Tensor:
        return FactoredMatrix(*A.factors, *M.factors).norm() / (A.norm() * M.norm())

    return torch.stack([score(product(), product()) for _ in range(n)])


def rotated_scores(model: GPT) -> Pairs:
    """NOT composition: what the paper's first diagram showed by a mistake, kept for its erratum.

    The factors of the product were rotated, W_O M W_V instead of W_V W_O M, before its norm was
    taken: [d_head d_head] matrices whose trace and eigenvalues are those of the product, but whose
    norm is not. Divided by the true ||W_OV|| ||M||; NaN where the writer is not earlier.
    """
    W_Q, W_K, W_V, W_O = _heads(model)
    ends = torch.stack([W_K, W_Q, W_O.mT]), torch.stack([W_Q, W_K, W_V])  # M = ends[1] ends[0]^T
    back = einsum(ends[0], W_V, "via rl r d e, wl w d f -> via wl w rl r e f")
    forth = einsum(W_O, ends[1], "wl w f d, via rl r d e -> via wl w rl r f e")
    writer = torch.linalg.matrix_norm(W_V @ W_O)
    reader = torch.linalg.matrix_norm(ends[1] @ ends[0].mT)
    size = einsum(writer, reader, "wl w, via rl r -> via wl w rl r")
    rotated = _root((back @ forth).square().sum((-2, -1)), size.square())
    return rotated.masked_fill(~_earlier(model, size), torch.nan)


def _heads(model: GPT) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W_Q, W_K, W_V as heads read with them, and W_O: in float32 at least and each of norm 1, which
    no score depends on, so that no product under- or overflows."""
    weights = (*(reads(model, what) for what in VIA), writes(model))
    sizes = [torch.linalg.matrix_norm(at_least_single(W), keepdim=True) for W in weights]
    W_Q, W_K, W_V, W_O = (
        at_least_single(W) / size.where(size > 0, 1) for W, size in zip(weights, sizes, strict=True)
    )
    return W_Q, W_K, W_V, W_O


def _earlier(model: GPT, like: Tensor) -> Bool[Tensor, "writer_layer 1 reader_layer 1"]:
    """Where the writer's layer is before the reader's."""
    layer = torch.arange(model.cfg.n_layers, device=like.device)
    return (layer[:, None] < layer)[:, None, :, None]


def _root(squared: Pairs, size: Pairs) -> Pairs:
    """sqrt(squared / size), and 0 where either is 0: there without a gradient, instead of a NaN."""
    found = (squared > 0) & (size > 0)
    return (squared.where(found, 1) / size.where(found, 1)).sqrt().where(found, 0)
