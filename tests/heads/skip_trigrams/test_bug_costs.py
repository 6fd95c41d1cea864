"""The cost of bugs is that of one cell after the other, in a model that knows keep ... in."""

import math

import numpy as np
import pytest
import torch

from analyses import skip_trigrams
from analyses.labelled import interval
from circuits import algebra, ground_truth
from tests.conftest import tiny
from tests.heads.skip_trigrams.talkers import centred

ANSWERS = ground_truth.SkipTrigramBug(20)
MODEL, MEANT = ANSWERS.model, torch.tensor([[0, *cell] for cell in ANSWERS.meant])


def test_keep_in_bay_costs_what_the_closed_form_says():
    """GT-D, papers.md 5.2: after keep ... in the logits of mind and bay are both `gain`."""
    V, gain = ANSWERS.d_vocab, ANSWERS.gain
    effect = gain * (1 - 2 / V)  # the mean over outs is subtracted
    without = math.log(math.exp(gain) + math.exp(gain - effect) + V - 2)
    added = ANSWERS.loss + gain - without  # the loss is log of the sum of exponentials, less gain
    cost = skip_trigrams.bug_cost(MODEL, MEANT, MEANT)
    tokens = MEANT.shape[1] - 1
    assert cost.sel(cells="forced").values == pytest.approx(added / tokens, rel=1e-9)
    assert cost.sel(cells="right").values == pytest.approx((added - effect) / tokens, rel=1e-9)


def test_a_forced_cell_that_the_text_goes_on_with_saves_what_a_right_one_does():
    bugs = torch.tensor([[0, *cell] for cell in ANSWERS.bugs])
    forced = skip_trigrams.bug_cost(MODEL, bugs, MEANT).sel(cells="forced")
    right = skip_trigrams.bug_cost(MODEL, MEANT, MEANT).sel(cells="right")
    assert forced.values == pytest.approx(right.values) and (forced < 0).all()


def test_a_text_without_the_other_pair_forces_nothing():
    cost = skip_trigrams.bug_cost(MODEL, MEANT[:1], MEANT[:1])
    assert cost.sel(cells="forced").values == pytest.approx(0, abs=1e-12)
    assert (cost.sel(cells="right") < 0).all()
    elsewhere = skip_trigrams.bug_cost(MODEL, MEANT, torch.tensor([[0, 9, 8, 7]]))
    assert elsewhere.values == pytest.approx(0, abs=1e-12)


def one_by_one(model, windows, seen) -> np.ndarray:
    """The definition, cell after cell."""
    read = skip_trigrams.through_first_norm(model)
    has = {(s, int(r[i]), int(r[i + 1])) for r in seen for i in range(len(r) - 1)
           for s in r[:i].tolist()}  # fmt: skip
    costs = []
    for r in windows:
        logits, cache = model.run_with_cache(r[None, :-1])
        scale = cache["ln_final.hook_scale"][0, :, 0]
        off = {"right": torch.zeros_like(logits[0]), "forced": torch.zeros_like(logits[0])}
        for h in range(model.cfg.n_heads):
            QK, OV = (centred(of(read)[0, h].AB) for of in (algebra.full_QK, algebra.full_OV))
            right = {(s, d, o) for s, d, o in has if QK[d, s] > 0 and OV[s, o] > 0}
            rows, columns = {(s, d) for s, d, _ in right}, {(s, o) for s, _, o in right}
            for i, d in enumerate(r[:-1].tolist()):
                for j, s in enumerate(r[:i].tolist()):
                    for o in range(model.cfg.d_vocab):
                        if (s, d) in rows and (s, o) in columns and OV[s, o] > 0:
                            kind = "right" if (s, d, o) in has else "forced"
                            move = cache["pattern", 0][0, h, i, j] / scale[i]
                            off[kind][i, o] += move * OV[s, o]
        loss = torch.nn.functional.cross_entropy
        costs.append([float(loss(logits[0], r[1:]) - loss(logits[0] - off[kind], r[1:]))
                      for kind in ("right", "forced")])  # fmt: skip
    return np.array(costs).T


def test_it_is_the_definition_cell_after_cell():
    model = tiny(n_layers=1, d_vocab=11, normalization_type="LN").requires_grad_(False)
    rows = torch.randint(0, 11, (6, 10), generator=torch.Generator().manual_seed(3))
    cost = skip_trigrams.bug_cost(model, rows[:2], rows[2:])
    expected = one_by_one(model, rows[:2], rows[2:])
    assert cost.dims == ("cells", "window") and (expected != 0).all()
    np.testing.assert_allclose(cost.values, expected, atol=1e-12)


def test_both_halves_are_measured_by_the_cells_of_the_other():
    rows = torch.cat([MEANT, MEANT[:1], MEANT[1:], MEANT])
    found = skip_trigrams.both_ways(MODEL, rows)
    halves = [skip_trigrams.bug_cost(MODEL, *pair)
              for pair in ((rows[:3], rows[3:]), (rows[3:], rows[:3]))]  # fmt: skip
    assert np.array_equal(found.values, np.concatenate(halves, 1))
    each = torch.from_numpy(found.values.T)
    np.testing.assert_array_equal([found.low, found.high], interval(each, torch.ones_like(each)))
    assert skip_trigrams.both_ways(MODEL, rows, 1).sizes["window"] == 2
    with pytest.raises(ValueError, match="got 1"):
        skip_trigrams.both_ways(MODEL, rows[:1])


def test_deeper_models_are_refused():
    with pytest.raises(ValueError, match="n_layers=2"):
        skip_trigrams.bug_cost(tiny(), MEANT, MEANT)
