"""Idealised patterns: their definition, and the share of a head that they recover."""

import numpy as np
import pytest
import torch
from xarray import DataArray

from analyses import Task, idealised, metrics, patching, prompts
from circuits import GPT, ground_truth
from circuits.interventions import as_hooks, edit
from tests.conftest import tiny, tiny_tokens

SAID = torch.tensor([[0, 1, 2, 3, 1, 2, 5, 2, 2, 1, 2]])  # BOS a b c a b e b b a b


def sources(pattern: torch.Tensor) -> list[list[int]]:
    """The source that each destination of the first row attends to."""
    return [row.nonzero()[:, 0].tolist() for row in pattern[0]]


@pytest.mark.parametrize("pattern", idealised.PATTERNS.values(), ids=idealised.PATTERNS)
def test_patterns_are_causal_and_their_rows_sum_to_one(pattern):
    made = pattern(tiny_tokens(batch=3, pos=9, d_vocab=4))
    assert torch.allclose(made.sum(-1), torch.ones(3, 9)) and made.min() >= 0
    assert made.triu(1).eq(0).all()


def test_they_attend_where_they_are_said_to():
    assert sources(idealised.previous_token(SAID)) == [[0], *([i] for i in range(10))]
    one, two, three = (sources(idealised.induction(SAID, n)) for n in (1, 2, 3))
    assert one == [[0], [0], [0], [0], [2], [3], [0], [3, 6], [3, 6, 8], [2, 5], [3, 6, 8, 9]]
    # The last b comes after a, as two others do: what followed those is c and e.
    assert two == [*one[:5], [3], *one[6:10], [3, 6]]
    assert three == two  # but nothing matches three
    thrice = torch.tensor([[0, 9, 1, 2, 3, 8, 1, 2, 4, 9, 1, 2]])
    assert sources(idealised.induction(thrice, 2))[-1] == [4, 8]
    assert sources(idealised.induction(thrice, 3))[-1] == [4]
    assert idealised.induction(thrice)[0, -1, [4, 8]].tolist() == [0.5, 0.5]
    assert sources(idealised.uniform(SAID))[3] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="n=0"):
        idealised.induction(SAID, 0)


def test_a_pattern_is_put_into_the_heads_that_were_asked_for():
    model, tokens = tiny(), tiny_tokens(batch=4, pos=8)
    seen = idealised.substitute(Task(model, tokens), [["L0H1", "L0H2"], "L1H0"])
    assert seen.component.values.tolist() == ["L0H1 + L0H2", "L1H0"]
    every = idealised.previous_token(tokens)[:, None].expand(-1, 3, -1, -1)
    cell = [edit(model, ("pattern", 0), every, head=head) for head in (1, 2)]
    with torch.no_grad():
        logits = model.run_with_hooks(tokens, fwd_hooks=as_hooks(cell))
    expected = metrics.mean_loss(tokens)(logits)
    assert np.allclose(seen.sel(component="L0H1 + L0H2", pattern="previous token"), expected)
    own = {"own": model.run_with_cache(tokens)[1]["pattern", 1][:, 0].detach()}
    alike = idealised.substitute(Task(model, tokens), "L1H0", own)
    assert np.allclose(alike, alike.source)
    patterns = model.run_with_cache(tokens)[1]["pattern", 0].detach()
    each = {"own": lambda head: patterns[:, head.head]}
    together = idealised.substitute(Task(model, tokens), [["L0H1", "L0H2"]], each)
    assert np.allclose(together, together.source)


@pytest.mark.parametrize("replace", ["zero", "mean"])
def test_of_the_hand_built_circuit_the_idealised_patterns_recover_all_and_others_nothing(replace):
    model = ground_truth.Induction().model
    task = Task(model, prompts.repeated(model, 12, batch=4), replace=replace)
    result = idealised.substitute(task, ["L0H0", "L1H0"])
    share = idealised.recovery(result).share
    previous, reader = share.sel(component="L0H0"), share.sel(component="L1H0")
    assert np.isclose(previous.sel(pattern="previous token"), 1, atol=1e-6)
    assert np.allclose(reader.sel(pattern=["induction", "induction, 2 tokens"]), 1, atol=1e-6)
    assert previous.drop_sel(pattern="previous token").max() < 0
    assert reader.sel(pattern=["previous token", "uniform"]).max() < 0
    assert np.allclose(patching.recovery(result.sel(component="L1H0")), reader)


def test_two_token_matches_recover_what_single_ones_leave_ambiguous():
    """A is followed by B once and by C twice. Only the token before A distinguishes them."""
    rows = [[0, a, 1, 5, b, 1, 6, a, 1, 5, b, 1, 6] for a, b in [(2, 3), (3, 4), (4, 2)]]
    seen = [sources(idealised.induction(torch.tensor(rows), n)) for n in (1, 2)]
    assert seen[0][8] == [3, 6] and seen[1][8] == [3]


def test_the_error_is_that_of_a_ratio_of_means():
    gains, gaps = np.array([1.0, 1.2, 0.9, 1.1, 1.3]), np.array([2.0, 2.2, 1.7, 2.5, 2.4])
    coords = {"component": ["L0H1"], "pattern": ["own"], "source": ("example", 3 - gaps),
              "base": (("component", "example"), np.full((1, 5), 3.0))}  # fmt: skip
    out = idealised.recovery(DataArray(3 - gains[None, None], coords, dims=(
        "component", "pattern", "example")))  # fmt: skip
    shares = [np.delete(gains, i).sum() / np.delete(gaps, i).sum() for i in range(5)]
    assert np.isclose(out.share, gains.sum() / gaps.sum())
    assert np.isclose(out.error, np.sqrt(4 * np.var(shares)))
    assert np.isclose(out.gap, gaps.mean()) and np.isclose(out.gap_error, gaps.std() / 2)


def test_an_untrained_model_has_no_gap_of_which_to_recover():
    model = GPT(tiny(d_model=15).cfg)
    tokens = prompts.repeated(model, 6, batch=6)
    out = idealised.recovery(idealised.substitute(Task(model, tokens), ["L0H1", "L1H0"]))
    assert abs(out.gap).max() < 1e-3 and out.share.isnull().all()


def test_what_does_not_fit_is_refused():
    model, tokens = tiny(), tiny_tokens(batch=4, pos=8)
    pattern = {"short": idealised.uniform(tokens[:, :5])}
    with pytest.raises(ValueError, match=r"want a pattern \[4, 8, 8\], got \[4, 5, 5\]"):
        idealised.substitute(Task(model, tokens), "L0H1", pattern)
    with pytest.raises(ValueError, match="a head is named like"):
        idealised.substitute(Task(model, tokens), "L0 attn")
    with pytest.raises(ValueError, match="at least two examples"):
        idealised.recovery(idealised.substitute(Task(model, tokens[:1]), "L0H1"))


def test_the_positional_pattern_keeps_the_mean_attention_by_distance():
    n, kernel = 6, torch.tensor([0.5, 0.3, 0.2, 0.0, 0.0, 0.0])
    own = torch.zeros(2, n, n)
    for i in range(n):
        row = kernel[torch.arange(i, -1, -1)]
        own[:, i, : i + 1] = row / row.sum()
    made = idealised.positional(own)
    assert torch.allclose(made.sum(-1), torch.ones(2, n)) and made.triu(1).eq(0).all()
    assert made[0, 5, 5] > made[0, 5, 4] > made[0, 5, 3] > made[0, 5, 2] == 0
    by_token = torch.eye(n)[None].expand(2, -1, -1)  # a head that sees the present token alone
    assert torch.allclose(idealised.positional(by_token), by_token)
    uniform = idealised.uniform(tiny_tokens(batch=2, pos=5))
    mean = [uniform[0].diagonal(-d).mean() for d in range(5)]
    last = torch.stack(mean[::-1]) / sum(mean)
    assert torch.allclose(idealised.positional(uniform)[0, 4], last)


def test_own_attention_on_matches_is_kept_and_the_rest_rests_on_the_first_token():
    own = idealised.uniform(SAID)
    made = idealised.own_on_matches(own, SAID)
    assert torch.allclose(made.sum(-1), torch.ones(1, 11))
    assert made[0, 4].tolist() == pytest.approx([0.8, 0, 0.2, *[0] * 8])  # a: 2 follows a
    assert made[0, 3, 0] == 1  # c comes for the first time
