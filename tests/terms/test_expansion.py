"""The terms of the expansions sum to the whole at every depth, and have the right sizes."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from analyses import attention, expansion, prompts
from circuits import ground_truth
from tests.conftest import tiny, tiny_tokens


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_the_product_of_tensors_is_the_logits(variant_of_any_depth):
    model, tokens = variant_of_any_depth, tiny_tokens(2)
    logits, cache = model.run_with_cache(tokens)
    assert float((expansion.multiply_out(model, cache) - logits).abs().max()) < 1e-10


def test_without_norms_the_product_is_the_papers_kronecker_formula():
    model = tiny(n_layers=1, normalization_type=None, positional_embedding_type="shortformer",
                 bias=False)  # fmt: skip
    tokens = tiny_tokens(1)
    _, cache = model.run_with_cache(tokens)
    pos, W_E, W_U = tokens.shape[1], model.W_E, model.W_U
    heads = sum(
        torch.kron(
            cache["pattern", 0][0, h].contiguous(),
            (model.W_V[0, h] @ model.W_O[0, h]).T.contiguous(),
        )
        for h in range(3)
    )
    middle = torch.eye(pos * 12, dtype=torch.float64) + heads
    one_hot = torch.nn.functional.one_hot(tokens[0], 29).double().flatten()
    Id = torch.eye(pos, dtype=torch.float64)
    written_out = (
        torch.kron(Id, W_U.T.contiguous()) @ middle @ torch.kron(Id, W_E.T.contiguous()) @ one_hot
    )
    torch.testing.assert_close(expansion.multiply_out(model, cache)[0].flatten(), written_out)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("mlp", [{}, {"d_mlp": 7, "act_fn": "gelu"}], ids=["attention", "mlp"])
def test_terms_sum_to_the_logits_at_every_depth(layers, mlp):
    model, tokens = tiny(n_layers=layers, **mlp), tiny_tokens(1)
    heads, orders = expansion.by_head(model, tokens), expansion.by_order(model, tokens)
    assert max(heads.attrs["error"], orders.attrs["error"]) < 1e-10
    assert len(heads) == 1 + 3 * layers + (layers > 1) and len(orders) == layers + 1
    np.testing.assert_allclose(heads.sel(term="direct path"), orders.sel(term="direct path"))
    assert float(heads.min()) > 0


def test_a_silent_head_has_no_term_and_an_altered_pattern_is_noticed():
    model, tokens = tiny(), tiny_tokens(1)
    with torch.no_grad():
        model.blocks[1].attn.W_O[2] = 0
    assert float(expansion.by_head(model, tokens).sel(term="L1H2").max()) == 0
    logits, cache = model.run_with_cache(tokens)
    with torch.no_grad():
        model.blocks[0].attn.W_O[0] *= 1.01
    assert float((expansion.multiply_out(model, cache) - logits).abs().max()) > 1e-4


def test_score_terms_are_four_and_sum_to_the_scores():
    model, tokens = tiny(), tiny_tokens(1)
    found = expansion.score_terms(model, tokens, "L1H1")
    assert len(found) == 4 and found.attrs["error"] < 1e-10
    _, cache = model.run_with_cache(tokens)
    scores = cache["attn_scores", 1][0, 1].tril().detach()
    np.testing.assert_allclose(found.sum("term"), scores.nan_to_num(neginf=0.0), atol=1e-10)


def test_neuron_terms_sum_to_what_the_neurons_read_and_want_neurons():
    model, tokens = tiny(d_mlp=7, act_fn="relu"), tiny_tokens(1)
    found = expansion.neuron_terms(model, tokens, 1)
    assert found.attrs["error"] < 1e-10
    _, cache = model.run_with_cache(tokens)
    assert found.attrs["largest"] == pytest.approx(float(cache["pre", 1].abs().max()))
    with pytest.raises(ValueError, match="MLP0"):
        expansion.neuron_terms(tiny(), tokens)


def test_prefix_matching_of_the_built_circuit_is_its_k_composition_term():
    model = ground_truth.Induction().model
    found = expansion.prefix_matching_by_term(model, "L1H0")
    assert found.attrs["whole"] == pytest.approx(float(attention.prefix_matching(model)[1, 0]))
    moved = found.sel(term="order 0 x order 1")  # the token itself with the token that was moved
    assert moved.sel(use="alone") > 0.9 and moved.sel(use="without") < 2 * found.attrs["chance"]


def test_terms_of_a_random_head_match_no_prefix_and_no_part_of_the_scores_is_lost(variant):
    if variant.cfg.n_layers < 2:
        return
    tokens = prompts.repeated(variant, 4, batch=3)
    found = expansion.prefix_matching_by_term(variant, (1, 2), tokens)
    whole = attention.prefix_matching(variant, tokens)[1, 2]
    assert found.attrs["whole"] == pytest.approx(float(whole))
    assert found.attrs["chance"] == pytest.approx(whole.attrs["chance"])
    assert abs(found - found.attrs["chance"]).max() < 0.5
