"""With patterns frozen, a head is its pattern times its OV circuit, linear in what enters."""

import torch

from circuits.decomposition import frozen
from circuits.model import Head
from tests.conftest import tiny, tiny_tokens


def test_a_head_is_the_kronecker_product_of_its_pattern_and_its_ov_circuit():
    """(A kron W) vec(x) = A x W with vec by rows: the tensor product of the paper, written out."""
    model = tiny(normalization_type=None, bias=False, positional_embedding_type="none", n_layers=1)
    _, cache = model.run_with_cache(tiny_tokens(1, 5))
    A, W, x = cache["pattern", 0][0, 1], model.OV[0, 1].AB, cache["embed"][0]
    written = torch.kron(A, W.T.contiguous()) @ x.flatten()
    carried = frozen.through_heads(model, cache, cache["embed"], [Head(0, 1)])[0]
    assert torch.allclose(written.reshape(x.shape), carried)
    B, V = cache["pattern", 0][0, 0], model.OV[0, 0].AB
    both = torch.kron(B, V.T.contiguous()) @ torch.kron(A, W.T.contiguous())
    assert torch.allclose(both, torch.kron(B @ A, (W @ V).T.contiguous()))  # mixed product


def test_frozen_paths_are_linear_in_what_enters():
    model = tiny(d_mlp=5, act_fn="gelu")
    _, cache = model.run_with_cache(tiny_tokens())
    x, y = torch.randn(2, *cache["embed"].shape, dtype=torch.float64)
    heads = [Head(1, 0), Head(1, 2)]
    both = frozen.through_heads(model, cache, 2 * x - y, heads)
    assert torch.allclose(both, 2 * frozen.through_heads(model, cache, x, heads)
                          - frozen.through_heads(model, cache, y, heads))  # fmt: skip
