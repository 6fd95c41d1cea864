"""Circuits are what weights and norms make of the embedding, exact and small."""

import pytest
import torch

from circuits import algebra
from circuits.matrices import FactoredMatrix
from tests.conftest import tiny, tiny_tokens

MLPS = {"d_mlp": 7, "act_fn": "relu"}


def test_full_circuits_of_one_layer_add_up_to_the_logits():
    """T = Id x W_E W_U + sum_h A^h x (W_E W_OV W_U), Elhage et al. 2021."""
    model = tiny(n_layers=1, normalization_type=None, positional_embedding_type="none", bias=False)
    tokens = torch.randint(0, 29, (2, 6), generator=torch.Generator().manual_seed(0))
    logits, cache = model.run_with_cache(tokens)
    total = (model.W_E @ model.W_U)[tokens]
    OV = algebra.full_OV(model)[0].AB
    for head in range(3):
        total = total + cache["pattern", 0][:, head] @ OV[head][tokens]
    assert torch.allclose(total, logits, atol=1e-10)
    scores = algebra.full_QK(model)[0].AB
    for head in range(3):
        seen = scores[head][tokens[:, :, None], tokens[:, None, :]]
        lower = torch.ones(6, 6).tril().bool()
        assert torch.allclose(
            cache["attn_scores", 0][:, head][:, lower], seen[:, lower], atol=1e-10
        )


def test_norms_fold_into_the_circuits_up_to_the_scale_of_each_position():
    """With LN, the OV circuit's logits times both 1/sigma are the head's effect on the logits."""
    model = tiny(n_layers=1, positional_embedding_type="none", bias=False)
    tokens = torch.arange(6)[None]
    _, cache = model.run_with_cache(tokens, names_filter="*")
    effect = cache["result", 0] / cache["scale"][..., None] @ algebra.unembedding(model)
    for head in range(3):
        moved = cache["pattern", 0][:, head] / cache["scale", 0, "ln1"].mT
        circuit = moved @ algebra.full_OV(model)[0, head].AB[tokens] / cache["scale"]
        assert torch.allclose(circuit, effect[:, :, head], atol=1e-10)


def test_k_composed_scores_are_the_scores_of_what_the_writer_moved():
    model = tiny(normalization_type=None, positional_embedding_type="none", bias=False)
    through = algebra.K_composed_QK(model, 1, 0)[2, 1].AB
    query = model.W_E @ model.W_Q[1, 2] / model.blocks[1].attn.scale
    moved = model.W_E @ model.W_V[0, 1] @ model.W_O[0, 1] @ model.W_K[1, 2]
    assert torch.allclose(through, query @ moved.T)


@pytest.fixture
def model():
    """A model with gains, centring, biases, and positions in the stream."""
    return tiny(**MLPS, positional_embedding_type="standard").requires_grad_(False)


def seen_by(norm, x, W):
    """norm(x) W less the share of the norm's bias, times sigma: the oracle of folding."""
    centred = x - x.mean(-1, keepdim=True)
    sigma = (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
    return (norm(x[None])[0] - norm.b) @ W * sigma


def test_circuits_are_what_the_norms_and_weights_of_a_head_make_of_the_embedding(model):
    E, scale = model.W_E, model.blocks[0].attn.scale
    for layer, block in enumerate(model.blocks):
        for head in range(3):
            q, k, v = (seen_by(block.ln1, E, getattr(block.attn, f"W_{x}")[head]) for x in "QKV")
            assert torch.allclose(algebra.full_QK(model)[layer, head].AB, q @ k.T / scale)
            moved = v @ block.attn.W_O[head]
            out = seen_by(model.ln_final, moved, model.W_U)
            assert torch.allclose(algebra.full_OV(model)[layer, head].AB, out)
            into = seen_by(block.ln2, moved, block.mlp.W_in)
            through = algebra.virtual_weights(model, f"embed > L{layer}H{head} > MLP{layer}")
            assert torch.allclose(through.AB, into)
    into = seen_by(model.blocks[1].ln2, E, model.W_in[1])
    assert torch.allclose(algebra.neuron_reads(model)[1].AB, into)
    assert torch.allclose(algebra.direct_path(model).AB, seen_by(model.ln_final, E, model.W_U))
    out = seen_by(model.ln_final, model.W_out[1], model.W_U)
    assert torch.allclose(algebra.virtual_weights(model, "MLP1 > logits").AB, out)


@pytest.mark.parametrize("norm", [None, "LN"])
def test_biased_circuits_are_the_scores_of_a_layer_that_sees_tokens_alone(norm):
    """With a norm the rows of the embedding have mean 0 and variance 1, so it does not change
    them."""
    model = tiny(n_layers=1, positional_embedding_type="none", normalization_type=norm, eps=1e-12)
    tokens = tiny_tokens()
    with torch.no_grad():
        if norm:
            model.embed.W_E.copy_(torch.nn.functional.layer_norm(model.W_E, (12,), eps=0.0))
        _, cache = model.run_with_cache(tokens)
        circuit = algebra.biased_QK(model)[0].AB
    seen = circuit[:, tokens[:, :, None], tokens[:, None, :]].transpose(0, 1)
    allowed = cache["attn_scores", 0].isfinite()
    assert torch.allclose(seen[allowed], cache["attn_scores", 0][allowed])
    with pytest.raises(ValueError, match="the model has no biases"):
        algebra.biased_QK(tiny(bias=False))


@pytest.mark.parametrize("kind", ["standard", "shortformer", "sinusoidal"])
def test_positional_circuits_are_the_scores_that_positions_alone_give(kind):
    """The embedding of the model is zero, so its stream has only positions."""
    model = tiny(bias=False, positional_embedding_type=kind, normalization_type=None)
    with torch.no_grad():
        model.embed.W_E.zero_()
        _, cache = model.run_with_cache(tiny_tokens())
    circuit = algebra.positional_QK(model)[0].AB[:, :7, :7]
    assert torch.allclose(circuit.tril(), cache["attn_scores", 0][0].masked_fill(
        torch.ones(7, 7).triu(1).bool(), 0.0))  # fmt: skip


def test_positional_circuits_of_shortformer_meet_the_weights_behind_the_norm():
    model = tiny(positional_embedding_type="shortformer").requires_grad_(False)
    scale = model.blocks[0].attn.scale
    expected = model.W_pos @ model.W_Q[1, 2] @ (model.W_pos @ model.W_K[1, 2]).T / scale
    assert torch.allclose(algebra.positional_QK(model)[1, 2].AB, expected)


def test_virtual_weights_are_the_product_along_the_names(model):
    OV, QK = algebra.OV(model), algebra.QK(model)
    along = algebra.virtual_weights
    assert torch.allclose(along(model, "embed > L0H1 > logits").AB, algebra.full_OV(model)[0, 1].AB)
    assert torch.allclose(along(model, "embed > logits").AB, algebra.direct_path(model).AB)
    two = along(model, "embed > L0H1 > L1H2 > logits").AB
    chain = algebra.virtual_OV(model, ["L0H1", "L1H2"]).AB
    assert torch.allclose(two, model.W_E @ chain @ algebra.unembedding(model))
    written, read = along(model, "MLP0 > L1H2.K").pair
    assert torch.allclose(written @ read, model.W_out[0] @ QK.factors[1][1, 2].mT)
    into = along(model, "L0H0 > MLP1").AB
    assert torch.allclose(into, model.W_O[0, 0] @ algebra.neuron_reads(model).factors[1][1])
    assert torch.allclose(along(model, "pos > L1H1.Q").AB, model.W_pos @ QK.factors[0][1, 1])
    assert torch.allclose(algebra.virtual_OV(model, [(0, 1)]).AB, OV[0, 1].AB)


def test_composed_circuits_of_a_chain_are_dense_products_and_agree_with_the_stacked_one(model):
    OV, QK, E = algebra.OV(model).AB, algebra.QK(model).AB, model.W_E
    both = algebra.composed_QK(model, "L1H2", query=["L0H0"], key=["L0H1"]).AB
    assert torch.allclose(both, E @ OV[0, 0] @ QK[1, 2] @ (E @ OV[0, 1]).T)
    plain = algebra.composed_QK(model, "L1H2").AB
    assert torch.allclose(plain, algebra.full_QK(model)[1, 2].AB)
    stacked = algebra.K_composed_QK(model, 1, 0)
    assert stacked.shape == (3, 3, 29, 29)
    one = algebra.composed_QK(model, "L1H2", key=["L0H1"])
    assert torch.allclose(stacked[2, 1].AB, one.AB)


def test_eigenvalues_from_the_small_matrix_are_those_of_the_dense_circuit(model):
    for circuit in (algebra.full_OV(model)[1, 0], algebra.composed_QK(model, "L1H0", key=["L0H2"])):
        small, dense = circuit.eigenvalues, torch.linalg.eigvals(circuit.AB)
        largest = dense[dense.abs().argsort(descending=True)[: len(small)]]
        assert (small[:, None] - largest[None]).abs().amin(0).max() < 1e-9
        assert torch.allclose(circuit.trace(), small.sum().real)


def test_full_circuits_hold_the_embedding_once():
    """144 heads of GPT-2 would hold 1.9 GB in each half otherwise."""
    model = tiny()
    for circuit in (algebra.full_OV(model), algebra.full_QK(model)):
        assert isinstance(circuit, FactoredMatrix)
        assert circuit.factors[0].data_ptr() == model.W_E.data_ptr()
        assert circuit[1].factors[0].data_ptr() == model.W_E.data_ptr()
