"""How much a later head reads, through Q, K or V, of what an earlier head writes.

The score of a writer's W_OV and the matrix M that a reader reads it with (W_QK for Q, W_QK^T for K,
its own W_OV for V) is ||W_OV M|| / (||W_OV|| ||M||), in Frobenius norms: 1 if all that is written
is read as strongly as can be, 0 if nothing of it is. (Elhage et al. 2021, "Virtual weights and
composition", https://transformer-circuits.pub/2021/framework/index.html)

||A M||^2 = <A^T A, M M^T>: the score of a pair is one inner product of two Gram matrices [d_model
d_model], one for each writer and one for each way to read. So all pairs are one matrix product.
Norms are folded into what reads from them (see algebra).
"""

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from circuits.algebra import reads
from circuits.config import GPTConfig
from circuits.factored import FactoredMatrix
from circuits.model import GPT

VIA = ("Q", "K", "V")
"How a head can read from an earlier one, in the order of the first dim of the scores."

Pairs = Float[Tensor, "via writer_layer writer reader_layer reader"]

STRIP, GROUP = 96, 4
"Rows of a Gram matrix, and layers of writers, that are at work at a time."


def scores(model: GPT) -> Pairs:
    """||W_OV M|| / (||W_OV|| ||M||) of every head with every later one through Q, K and V, in
    [0, 1]; NaN where the writer's layer is not the earlier one, 0 where a head is zero.

    `chance` is what random matrices give. Exact to the square root of the precision near 0. Take
    it under torch.no_grad() for large models: it then holds `STRIP` rows of the Gram matrices.
    ValueError for a weight that is not finite.
    """
    W_Q, W_K, W_V, W_O = (*(reads(model, what) for what in VIA), model.W_O)
    written = W_O, W_V.mT @ W_V @ W_O  # A^T A = W_O^T (W_V^T W_V) W_O, left and right factor
    ways = ((W_Q.mT, W_K.mT @ W_K @ W_Q.mT), (W_K.mT, W_Q.mT @ W_Q @ W_K.mT),
            (W_V.mT, W_O @ W_O.mT @ W_V.mT))  # fmt: skip
    read = tuple(torch.stack(side, 1) for side in zip(*ways, strict=True))  # layer via head e d
    squared = _inner_products(written, read)
    writer, reader = ((left * right).sum((-2, -1)) for left, right in (written, read))  # norms^2
    size = einsum(writer, reader, "wl w, rl via r -> via wl w rl r")
    earlier = torch.ones(2 * [model.cfg.n_layers], device=size.device).triu(1).bool()
    score = (squared.clamp(min=0) / size.clamp(min=1e-30)).sqrt()
    return score.masked_fill(~earlier[:, None, :, None], torch.nan)


def _inner_products(written: tuple[Tensor, ...], read: tuple[Tensor, ...]) -> Pairs:
    """<A^T A, M M^T> of the Gram matrices that are given as products [e d]^T [e d].

    They are symmetric: the entries on and right of the diagonal do, those right of it twice.
    """
    n_layers, _, n_heads, _, d_model = read[0].shape
    total = read[0].new_zeros(n_layers * n_heads, n_layers * len(VIA) * n_heads)
    for start in range(0, d_model, STRIP):
        once = _rows(written, start, twice=True).flatten(0, 1)
        again = _rows(read, start).flatten(0, 2)
        for layer in range(0, n_layers - 1, GROUP):  # writers of a few layers, all later readers
            group = slice(layer * n_heads, (layer + GROUP) * n_heads)
            later = slice((layer + 1) * len(VIA) * n_heads, None)
            total[group, later] += once[group] @ again[later].T
    return rearrange(
        total, "(wl w) (rl via r) -> via wl w rl r", wl=n_layers, rl=n_layers, via=len(VIA)
    )


def _rows(
    factors: tuple[Tensor, ...], start: int, *, twice: bool = False
) -> Float[Tensor, "*lead entries"]:
    """A strip of rows of left^T right from the diagonal on; `twice` doubles what is right of it."""
    left, right = factors
    right = right[..., start:]
    if twice:
        right = torch.cat([right[..., :STRIP], 2 * right[..., STRIP:]], -1)
    # Within the square on the diagonal both halves are there, so it counts once.
    return (left[..., start : start + STRIP].mT @ right).flatten(-2)


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
    W_Q, W_K, W_V, W_O = (*(reads(model, what) for what in VIA), model.W_O)
    ends = torch.stack([W_K, W_Q, W_O.mT]), torch.stack([W_Q, W_K, W_V])  # M = start end^T
    back = einsum(ends[0], W_V, "via rl r d e, wl w d f -> via wl w rl r e f")
    forth = einsum(W_O, ends[1], "wl w f d, via rl r d e -> via wl w rl r f e")
    writer = torch.linalg.matrix_norm(W_V @ W_O)
    reader = torch.linalg.matrix_norm(ends[1] @ ends[0].mT)
    size = einsum(writer, reader, "wl w, via rl r -> via wl w rl r")
    rotated = torch.linalg.matrix_norm(back @ forth) / size.clamp(min=1e-30)
    return rotated.masked_fill(scores(model).isnan(), torch.nan)
