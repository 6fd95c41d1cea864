import pytest
import torch

from circuits.decomposition import algebra, composition, composition_chance, turns
from tests.conftest import ROTARY, tiny, variant_name

KINDS = pytest.mark.parametrize("fields", ROTARY, ids=variant_name)
BACK = range(16)


def close(a, b, atol=1e-12):
    return torch.allclose(a, b, rtol=0, atol=atol)


@KINDS
def test_there_is_a_circuit_at_each_offset_and_their_mean_is_one_circuit(fields):
    model = tiny(**fields)
    at_each = algebra.full_QK(model, BACK)
    assert at_each.shape == (16, *algebra.full_QK(model).shape)
    assert close(at_each[3].AB, algebra.full_QK(model, 3).AB)
    assert close(at_each.AB.mean(0), algebra.full_QK(model).AB)
    q, k = (algebra.reads(model, what) for what in "QK")
    by_hand = q @ model.rotary.matrix(torch.tensor(3)) @ k.mT
    assert close(algebra.QK(model, 3).AB, by_hand)
    assert close(at_each.trace(), at_each.AB.diagonal(dim1=-2, dim2=-1).sum(-1), 1e-10)


@torch.no_grad()
def test_without_a_norm_the_circuit_at_an_offset_is_the_score_of_a_run():
    fields = {**ROTARY[0], "normalization_type": None, "parallel_attn_mlp": False}
    model, tokens = tiny(**fields), torch.randint(0, 29, (1, 9))
    _, cache = model.run_with_cache(tokens)
    for back in (0, 1, 5):
        circuit = algebra.biased_QK(model, back)[0].AB
        scores = cache["attn_scores", 0][0, :, 8, 8 - back]
        assert close(circuit[:, tokens[0, 8], tokens[0, 8 - back]], scores)


@KINDS
def test_composed_circuits_take_an_offset_too(fields):
    model = tiny(**fields)
    writer, embed = algebra.OV(model)[0, 2].AB, model.W_E
    for offset in (None, 2):
        keys = embed @ writer
        wanted = embed @ algebra.QK(model, offset)[1, 0].AB @ keys.T
        assert close(algebra.composed_QK(model, (1, 0), key=[(0, 2)], offset=offset).AB, wanted)
        assert close(algebra.K_composed_QK(model, 1, 0, offset)[0, 2].AB, wanted)
    assert algebra.composed_QK(model, (1, 0), offset=[1, 2, 3]).shape == (3, 29, 29)


@pytest.mark.parametrize("offset", [None, 3, [0, 2, 3]])
@KINDS
def test_composition_is_the_root_mean_square_over_offsets(fields, offset):
    model = tiny(**fields)
    those = list(BACK) if offset is None else [offset] if isinstance(offset, int) else offset
    QK, OV = algebra.QK(model, those).AB[:, 1], algebra.OV(model).AB[0]
    size = torch.linalg.matrix_norm
    for via, read in enumerate((QK, QK.mT)):
        products = size(OV[:, None] @ read[:, None])  # offset writer reader
        wanted = products.square().mean(0).sqrt() / size(OV)[:, None]
        wanted = wanted / size(read).square().mean(0).sqrt()
        assert close(composition.scores(model, offset)[via, 0, :, 1], wanted)
    apart = composition.scores(model, 0)[1, 0, :, 1], composition.scores(model, 9)[1, 0, :, 1]
    assert not close(*apart, atol=1e-3)


@KINDS
def test_concentrations_are_those_of_the_mean_over_offsets(fields):
    model = tiny(**fields)
    M = algebra.QK(model, BACK).AB
    for via, squares in enumerate((M @ M.mT, M.mT @ M)):
        R = squares.mean(0)
        share = (R @ R).diagonal(dim1=-2, dim2=-1).sum(-1)
        share = share / R.diagonal(dim1=-2, dim2=-1).sum(-1) ** 2
        assert close(composition_chance.concentrations(model)[via], share)


@pytest.mark.parametrize(("offset", "message"), [
    (16, "from 0 to 15; got 16"), (-1, "got -1"), ([0, 99], "got"), (True, "got True"),
    (torch.tensor([[1]]), "got tensor")])  # fmt: skip
def test_offsets_that_do_not_exist_are_refused(offset, message):
    with pytest.raises(ValueError, match=message):
        turns.offsets(tiny(**ROTARY[0]), offset)


def test_a_model_without_rotary_positions_has_no_circuit_at_an_offset():
    for ask in (lambda: algebra.QK(tiny(), 1), lambda: composition.scores(tiny(), 1)):
        with pytest.raises(ValueError, match="only rotary positions have a QK circuit"):
            ask()
    with pytest.raises(ValueError, match="erratum are of models without rotary"):
        composition.rotated_scores(tiny(**ROTARY[0]))
    with pytest.raises(ValueError, match="has no positions"):
        algebra.positional_QK(tiny(**ROTARY[0]))
