"""Copying heads and matching heads: does a circuit from tokens to tokens map them to themselves?

Eigenvalues: if the circuit maps tokens to themselves, they have positive real parts; in a random
matrix half of them do. Entries: the share of tokens that raise their own logit, or raise it most.
No d_vocab x d_vocab matrix is ever held. A circuit is read from the token embedding directly, also
in layers after MLPs. (Elhage et al. 2021, "Copying heads" and "Summarizing OV/QK matrices",
https://transformer-circuits.pub/2021/framework/index.html)
"""

from itertools import groupby
from operator import itemgetter

import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray

from analyses.labelled import per_head
from circuits.decomposition import K_composed_QK, full_OV, full_QK
from circuits.matrices import FactoredMatrix, Progress, at_least_single, blocks
from circuits.model import GPT, AnyHead, check_predicts, every_head
from circuits.model import head as head_of


def eigenvalues(model: GPT, *, centred: bool = False) -> DataArray:
    """The d_head eigenvalues of each head's full OV circuit, complex, (layer, head, eigenvalue);
    `centred`: of the circuit whose rows are less their mean over outs."""
    with torch.no_grad():
        values = _circuit(model, centred).eigenvalues
    return per_head(values, "eigenvalues", "eigenvalue", long_name="OV eigenvalues", units="logits")


def positivity(circuit: FactoredMatrix) -> Float[Tensor, "*lead"]:
    """sum(eig) / sum(|eig|) in [-1, 1] for each leading index: 1 if every eigenvalue is positive,
    around 0 for a random matrix, and 0 for a circuit that is zero up to rounding."""
    values = circuit.eigenvalues
    total, rounding = values.abs().sum(-1), 10 * torch.finfo(values.dtype).eps
    score = values.sum(-1).real / total.clamp(min=1e-30)
    return torch.where(total > rounding * circuit.size(), score, 0.0)


def centre_rows(circuit: FactoredMatrix) -> FactoredMatrix:
    """A circuit, still factored, with the mean of each row subtracted: the mean logit of a source,
    or the mean score of a query. The softmax does not depend on it."""
    *first, last = circuit.factors
    return FactoredMatrix(*first, last - last.mean(-1, keepdim=True))


def score(model: GPT, *, centred: bool = False) -> DataArray:
    """sum(eig) / sum(|eig|) of each head's full OV circuit, (layer, head), in [-1, 1]; `centred`:
    of the circuit whose rows are less their mean over outs, which softmax cannot see."""
    with torch.no_grad():
        values = positivity(_circuit(model, centred))
    words = "OV copying: sum of eigenvalues over sum of sizes"
    return per_head(values, "copying_score", long_name=words, bounds=(-1.0, 1.0), chance=0.0)


def _circuit(model: GPT, centred: bool) -> FactoredMatrix:
    return centre_rows(full_OV(model)) if centred else full_OV(model)


def qk_score(model: GPT) -> DataArray:
    """sum(eig) / sum(|eig|) of each head's full QK circuit, (layer, head), in [-1, 1]: 1 for a head
    that attends to its own token, as a duplicate-token head does."""
    with torch.no_grad():
        values = positivity(full_QK(model))
    words = "QK matching: sum of eigenvalues over sum of sizes"
    return per_head(values, "matching_score", long_name=words, bounds=(-1.0, 1.0), chance=0.0)


def composed_qk_score(model: GPT, writer: AnyHead) -> DataArray:
    """sum(eig) / sum(|eig|) of W_E W_QK (W_E W_OV^writer)^T, (layer, head) of all later layers, in
    [-1, 1]: 1 for a head that attends where the token moved by `writer` equals its own token.

    If `writer` is a previous-token head, this is the QK half of the induction circuit. ValueError
    if there is no such head, or no layer after it.
    """
    at = head_of(model.cfg, writer)
    later = range(at.layer + 1, model.cfg.n_layers)
    if not later:
        raise ValueError(f"{at} is in the last layer: no later head reads its output")
    with torch.no_grad():
        through = [positivity(K_composed_QK(model, layer, at.layer)[:, at.head]) for layer in later]
    values = torch.stack([torch.full_like(through[0], torch.nan)] * later.start + through)
    words = f"QK matching through {at}: sum of eigenvalues over sum of sizes"
    every = per_head(
        values, "composed_matching_score", long_name=words, bounds=(-1.0, 1.0), chance=0.0
    )
    return every[later.start :]


def diagonal(model: GPT) -> DataArray:
    """The share of tokens that raise their own logit above the mean logit, (layer, head), in
    [0, 1]: 1 for a copying head, 1/2 for random matrices."""
    with torch.no_grad():
        values = (centre_rows(full_OV(model)).diagonal() > 0).double().mean(-1)
    words = "tokens that raise their own logit"
    return per_head(values, "diagonal", long_name=words, bounds=(0.0, 1.0), chance=0.5)


def own_rank(
    model: GPT, *, block_bytes: int = 2**26, progress: Progress | None = None
) -> DataArray:
    """The number of other tokens that a token raises at least as much as itself, (layer, head,
    token), from 0 to d_vocab - 1: 0 if it raises itself most, d_vocab - 1 if it raises nothing.

    Exact. Rows of the OV circuits are multiplied out in blocks of at most `block_bytes` (64 MiB),
    in d_vocab^2 d_head operations per head. This takes minutes for a large model; `progress`
    (tqdm.tqdm) shows the progress.
    """
    with torch.no_grad():
        values = _own_ranks(model, block_bytes, progress)
    words = "tokens raised as much as the token itself"
    size = model.cfg.d_vocab - 1
    return per_head(
        values, "own_rank", "token", long_name=words, bounds=(0.0, float(size)), chance=size / 2
    )


def own_top(
    model: GPT, top: int = 1, *, block_bytes: int = 2**26, progress: Progress | None = None
) -> DataArray:
    """The share of tokens whose own logit is among the `top` logits that they raise most, (layer,
    head), in [0, 1]; chance is top / d_vocab. See `own_rank`. ValueError unless 1 <= top <=
    d_vocab."""
    if not 1 <= top <= model.cfg.d_vocab:
        raise ValueError(f"top is from 1 to d_vocab={model.cfg.d_vocab}, got {top}")
    ranks = own_rank(model, block_bytes=block_bytes, progress=progress)
    attrs = {
        "long_name": f"tokens whose own logit is among the {top} most raised",
        "bounds": (0.0, 1.0),
        "chance": top / model.cfg.d_vocab,
    }
    return (ranks < top).mean("token").rename("own_top").assign_attrs(attrs)


def _own_ranks(
    model: GPT, block_bytes: int, progress: Progress | None
) -> Int[Tensor, "layer head token"]:
    check_predicts(model.cfg, "copying")
    OV, cfg = full_OV(model), model.cfg
    parts = blocks(cfg.d_vocab, cfg.d_vocab * model.W_E.element_size(), block_bytes)
    steps = [(at, part) for at in every_head(cfg) for part in parts]
    found = []
    for at, steps_of_one in groupby(steps if progress is None else progress(steps), itemgetter(0)):
        circuit = FactoredMatrix(*map(at_least_single, OV[at].pair))
        for _, part in steps_of_one:
            raised = circuit.rows(part)  # source out
            sources = torch.arange(part.start, part.stop, device=raised.device)[:, None]
            found.append((raised >= raised.gather(1, sources)).sum(-1) - 1)
    joined = torch.cat(found) if found else torch.empty(0, dtype=torch.long)
    return joined.reshape(cfg.n_layers, cfg.n_heads, cfg.d_vocab)
