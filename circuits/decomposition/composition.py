"""Composition: how much a later head reads, through Q, K or V, of the output of an earlier head.

The score of a writer's W_OV and the matrix M that a reader reads it with (W_QK for Q, W_QK^T for K,
its own W_OV for V) is ||W_OV M|| / (||W_OV|| ||M||), in Frobenius norms. It is 1 if the reader
reads everything that the writer writes as strongly as it can, and 0 if it reads nothing. (Elhage et
al. 2021, "Virtual weights and composition",
https://transformer-circuits.pub/2021/framework/index.html)

||A M||^2 = <A^T A, M M^T>, so the score of a pair is an inner product of two Gram matrices [d_model
d_model]: one of the writer and one of the reader. All pairs together are one matrix product. Norms
are folded into the weights that read from them (see algebra).

With rotary positions W_QK depends on the offset. The score is then the root of the mean square over
offsets, ||A M|| and ||M|| alike: M M^T = W_Q C W_Q^T with C the mean of R W_K^T W_K R^T, and the
same for K with the roles exchanged. A token that a fast plane finds one back composes at offset 1,
and much less in the mean: these are different questions, and `offset` asks the first.
"""

from collections.abc import Iterator

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.decomposition.algebra import reads, writes
from circuits.decomposition.turns import Offset, mean_turned
from circuits.matrices import at_least_single
from circuits.model import GPT, GPTConfig

VIA = ("Q", "K", "V")
"The ways in which a head reads an earlier head, in the order of the first dim of the scores."

Pairs = Float[Tensor, "via writer_layer writer reader_layer reader"]

Gram = tuple[Float[Tensor, "layer head e d_model"], Float[Tensor, "layer head e d_model"]]
"A Gram matrix [d_model d_model] of each head, as left^T right."

STRIP = 64
"The number of rows of the Gram matrices that are in memory at a time."


def scores(model: GPT, offset: Offset = None) -> Pairs:
    """||W_OV M|| / (||W_OV|| ||M||) of every head with every later head through Q, K and V, in [0,
    1]. NaN where the writer's layer is not before the reader's layer, 0 where a head is zero.

    `chance` is the score of random matrices. Near 0 the error of a score is about the square root
    of the precision. Use torch.no_grad() for large models, so that only `STRIP` rows of the Gram
    matrices are in memory. The dtype is at least float32. With rotary positions the scores are of
    the offsets in `offset`, by default of all. ValueError for a weight that is not finite.
    """
    written, ways = grams(model, offset)
    squared = _inner_products(written, ways)
    writer, *readers = ((left * right).sum((-2, -1)) for left, right in (written, *ways))
    size = einsum(writer, torch.stack(readers), "wl w, via rl r -> via wl w rl r")  # norms^2
    return _root(squared, size).masked_fill(~_earlier(model, size), torch.nan)


def grams(model: GPT, offset: Offset = None) -> tuple[Gram, tuple[Gram, Gram, Gram]]:
    """A^T A of each writer and M M^T of each reader through Q, K and V, up to factors per head."""
    W_Q, W_K, W_V, W_O = _heads(model)
    written = W_O, W_V.mT @ W_V @ W_O  # A^T A = W_O^T (W_V^T W_V) W_O, left and right factor
    of_K = mean_turned(model, W_K.mT @ W_K, offset)  # W_K^T W_K without rotary positions
    of_Q = mean_turned(model, W_Q.mT @ W_Q, offset, back=True)
    ways = (W_Q.mT, of_K @ W_Q.mT), (W_K.mT, of_Q @ W_K.mT), (W_V.mT, W_O @ W_O.mT @ W_V.mT)
    return written, ways


def _inner_products(written: Gram, ways: tuple[Gram, ...]) -> Pairs:
    """<A^T A, M M^T> of every writer with every later reader; all other entries mean nothing. Gram
    matrices are symmetric, so entries right of the diagonal count twice, and entries left of it are
    not needed."""
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
    """A few pairs of blocks of layers that together pair each layer with every later layer."""
    if last - first > 1:
        middle = (first + last) // 2
        yield slice(first, middle), slice(middle, last)
        yield from _earlier_by_later(first, middle)
        yield from _earlier_by_later(middle, last)


def _rows(gram: Gram, start: int, *, twice: bool = False) -> Float[Tensor, "layer head entries"]:
    """A strip of rows of left^T right, from the diagonal on. `twice` doubles the entries to the
    right of the square on the diagonal."""
    left, right = gram[0][..., start : start + STRIP], gram[1][..., start:]
    rows = left.contiguous().mT @ right
    if twice:  # the square on the diagonal has both of its halves
        rows[..., STRIP:] *= 2
    return rows.flatten(-2)


def chance(cfg: GPTConfig) -> float:
    """1 / sqrt(d_model), the score of random matrices. E ||A M||^2 = ||A||^2 ||M||^2 / d_model if A
    or M is rotated at random, so this is the exact root mean square. The mean is a little smaller
    (by 0.0004 for d_model 64)."""
    return cfg.d_model**-0.5


def rotated_scores(model: GPT) -> Pairs:
    """NOT composition scores, but the scores that the paper first showed by mistake (see its
    erratum).

    The mistake was to take the norm of W_O M W_V instead of W_V W_O M. These [d_head d_head]
    matrices have the trace and the eigenvalues of the product, but not its norm. The norm is
    divided by the true ||W_OV|| ||M||. NaN where the writer is not earlier. ValueError for rotary
    positions, with which M depends on the offset.
    """
    if model.cfg.rotary:
        raise ValueError("the scores of the erratum are of models without rotary positions")
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
    """W_Q, W_K and W_V with norms folded in, and W_O, in float32 at least. Each is scaled to norm
    1, so that no product under- or overflows; scores do not depend on it."""
    weights = (*(reads(model, what) for what in VIA), writes(model))
    sizes = [torch.linalg.matrix_norm(at_least_single(W), keepdim=True) for W in weights]
    W_Q, W_K, W_V, W_O = (
        at_least_single(W) / size.where(size > 0, 1) for W, size in zip(weights, sizes, strict=True)
    )
    return W_Q, W_K, W_V, W_O


def _earlier(model: GPT, like: Tensor) -> Bool[Tensor, "writer_layer 1 reader_layer 1"]:
    """True where the writer's layer is before the reader's layer."""
    layer = torch.arange(model.cfg.n_layers, device=like.device)
    return (layer[:, None] < layer)[:, None, :, None]


def _root(squared: Pairs, size: Pairs) -> Pairs:
    """sqrt(squared / size), and 0 where one of them is 0. There the gradient is 0, and not NaN."""
    found = (squared > 0) & (size > 0)
    return (squared.where(found, 1) / size.where(found, 1)).sqrt().where(found, 0)
