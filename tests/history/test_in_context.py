"""In-context learning: closed forms of the score and of the slope."""

import numpy as np
import pytest
import torch
import xarray

from analyses import ablation, in_context, induction, losses, prompts
from circuits import GPT, ground_truth
from tests.benchmarks.bench_model import peak_mebibytes
from tests.conftest import tiny, tiny_tokens

TOKENS = tiny_tokens(batch=8)


def test_the_slope_of_a_loss_that_falls_with_the_log_of_the_index_is_that_fall():
    index = np.arange(1, 200)
    loss = xarray.DataArray(5 - 0.3 * np.log(index), dims="index", coords={"index": index})
    slope = in_context.slope(loss)
    assert slope.values == pytest.approx(-0.3, abs=1e-9) and slope.attrs["units"] == "nats"
    two = xarray.concat([loss, 2 * loss], "step")
    assert in_context.slope(two)[1].values == pytest.approx(-0.6, abs=1e-9)


def test_the_in_context_score_of_induction_is_the_difference_of_its_closed_forms():
    answers = ground_truth.Induction()
    model = answers.model
    rows = prompts.repeated(model, 19, batch=4)
    loss = in_context.loss_by_index(model, rows)
    assert loss.index.values.tolist() == list(range(1, 39))
    assert loss[:, :20].values == pytest.approx(answers.loss_before_repeat, abs=1e-6)
    assert loss[:, 20:].values == pytest.approx(answers.loss_after_repeat, abs=1e-6)
    score = in_context.score(loss)
    gain = answers.loss_after_repeat - answers.loss_before_repeat
    assert [float(x) for x in (score, score.low, score.high)] == pytest.approx([gain] * 3, abs=1e-6)
    untrained = in_context.score(in_context.loss_by_index(GPT(model.cfg), rows))
    assert abs(float(untrained)) < 0.1
    whole = model(rows, return_type="loss", loss_per_token=True)
    assert loss.values == pytest.approx(whole.numpy())


@pytest.mark.parametrize("call", [
    lambda m: induction.loss_by_position(m, prompts.repeated(m, 3)),
    lambda m: in_context.loss_by_index(m, TOKENS),
    lambda m: losses.of_tokens(m, TOKENS),
    lambda m: ablation.of_heads(m, TOKENS)])  # fmt: skip
def test_losses_over_a_large_vocabulary_are_taken_in_pieces(call, monkeypatch):
    model = tiny(d_vocab=2**14, n_layers=1, dtype=torch.float32)
    whole = np.asarray(call(model))
    monkeypatch.setattr(losses, "LOGITS", 7 * 2**14)
    found = []
    held = peak_mebibytes(lambda: found.append(np.asarray(call(model))))
    assert held < 2.5  # MiB: logits of one row thrice are 1.3, and those of all rows 10
    np.testing.assert_allclose(found[0], whole, rtol=1e-4, atol=1e-5)
