"""Orders telescope to the loss, splits add up, and known circuits have their known terms."""

import math

import numpy as np
import pytest
import torch

from analyses import importance, prompts
from circuits import ground_truth, paths
from tests.conftest import POSITIONS, tiny, tiny_tokens


@pytest.fixture(params=[0, 1, 2, 3, 4], ids=lambda n: f"{n}-layers")
def deep(request):
    """An attention-only model of each depth, with the positions in turn; norm and biases too."""
    kind = POSITIONS[request.param]
    return tiny(n_layers=request.param, n_heads=2, positional_embedding_type=kind)


def test_orders_telescope_to_the_loss_of_the_model(deep):
    tokens = tiny_tokens()
    true = deep(tokens, return_type="loss").item()
    for losses in (importance.by_order(deep, tokens), importance.frozen_by_order(deep, tokens)):
        assert losses.values[-1] == pytest.approx(true, abs=1e-10)
        assert losses.attrs["uniform"] - losses.saved.values.sum() == pytest.approx(true, abs=1e-10)
        assert losses.sizes == {"order": deep.cfg.n_layers + 1}
    n = deep.cfg.n_layers
    assert losses.terms.values.tolist() == [math.comb(n, k) * 2**k for k in range(n + 1)]


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("kind", POSITIONS)
def test_the_papers_runs_are_the_path_expansion_where_nothing_is_rescaled(n_layers, kind):
    """Two independent ways to the same orders: forced runs, and sums over paths."""
    model = tiny(n_layers=n_layers, normalization_type=None, bias=False, n_heads=2,
                 positional_embedding_type=kind)  # fmt: skip
    tokens = tiny_tokens()
    runs, expanded = importance.by_order(model, tokens), importance.frozen_by_order(model, tokens)
    assert runs.values == pytest.approx(expanded.values, abs=1e-9)


def test_frozen_orders_are_those_of_a_run_that_is_given():
    model, tokens = tiny(), tiny_tokens()
    _, cache = model.run_with_cache(tokens)
    given = importance.frozen_by_order(model, tokens, cache)
    assert given.values == pytest.approx(importance.frozen_by_order(model, tokens).values)


def test_one_row_of_tokens_is_a_batch_of_one():
    model, tokens = tiny(), tiny_tokens(1)
    for table in (importance.by_order, importance.frozen_by_order, importance.by_layer):
        assert table(model, tokens[0]).values == pytest.approx(table(model, tokens).values)


def test_order_zero_rescales_the_norm_in_the_papers_runs():
    model, tokens = tiny(bias=False, positional_embedding_type="shortformer"), tiny_tokens()
    direct = model.unembed(model.ln_final(model.W_E[tokens]))
    expected = importance.loss(direct, tokens).item()
    assert importance.by_order(model, tokens).values[0] == pytest.approx(expected)


def test_a_layers_share_is_the_loss_with_its_heads_alone_and_without_them():
    """From dense terms of order 0 and 1, no norm: an independent sum."""
    model = tiny(n_layers=3, normalization_type=None, bias=False)
    tokens = tiny_tokens()
    _, cache = model.run_with_cache(tokens)
    terms = paths.groups(model, cache, "layers")

    def nats(*names):
        return importance.loss(sum((terms[name] for name in names), terms["direct"]), tokens).item()

    saved = importance.by_layer(model, tokens)
    every, whole = ["L0", "L1", "L2"], nats("L0", "L1", "L2")
    for layer, name in enumerate(every):
        rest = [other for other in every if other != name]
        alone, marginal = nats() - nats(name), nats(*rest) - whole
        assert saved.values[layer] == pytest.approx([alone, marginal], abs=1e-10)


def test_two_ways_around_the_square_of_two_layers_agree():
    """F24: a layer alone, and then the other layer, save the same total in both orders."""
    saved = importance.by_layer(tiny(), tiny_tokens())
    first = saved.sel(layer=0, given="direct path") + saved.sel(layer=1, given="other layers")
    second = saved.sel(layer=1, given="direct path") + saved.sel(layer=0, given="other layers")
    assert float(first) == pytest.approx(float(second))


def test_a_paths_value_is_the_rise_of_the_metric_without_it():
    model, tokens = tiny(d_mlp=5, act_fn="gelu"), tiny_tokens()
    logits, cache = model.run_with_cache(tokens)
    chosen = [paths.path(model, "embed > L1H2 > logits"), paths.path(model, "MLP0 > logits")]
    saved = importance.of_paths(model, tokens, chosen)
    for path, value in zip(chosen, saved.values, strict=True):
        without = logits - paths.logits(model, cache, path)
        rise = importance.loss(without, tokens) - importance.loss(logits, tokens)
        assert value == pytest.approx(rise.item())
    assert saved.path.values.tolist() == [str(path) for path in chosen]

    def one_logit(logits):
        return logits[:, -1, 3]

    linear = importance.of_paths(model, tokens, paths.all(model), one_logit)
    assert -linear.values.sum() == pytest.approx(one_logit(logits).mean().item())


def test_a_virtual_heads_value_is_that_of_all_its_paths():
    model, tokens = tiny(n_layers=3), tiny_tokens()
    logits, cache = model.run_with_cache(tokens)
    saved = importance.of_virtual_heads(model, tokens)
    assert saved.isnull().sum() == 3 * (3 + 6 + 9)  # writers beside or after their readers
    terms = [
        paths.logits(model, cache, paths.path(model, f"{start} > L1H0 > L2H1 > logits"))
        for start in ("embed", "pos", "L0 bias")
    ]
    rise = importance.loss(logits - sum(terms), tokens) - importance.loss(logits, tokens)
    assert float(saved.sel(writer="L1H0", reader="L2H1")) == pytest.approx(rise.item())


def test_known_circuits_have_their_known_orders():
    """GT-A needs no virtual head, GT-C nothing else: papers.md 5.2."""
    answers = ground_truth.Induction()
    model = answers.model
    tokens = prompts.repeated(model, 19)

    def second(logits):  # the second copy, without its first token
        return importance.token_loss(logits, tokens)[:, 20:].mean()

    _, cache = model.run_with_cache(tokens)
    orders = paths.groups(model, cache, "order").stack.cumsum(0)
    losses = [second(one).item() for one in orders]
    assert losses == pytest.approx(answers.loss_by_order, abs=1e-6)
    pairs = importance.of_virtual_heads(model, tokens, second)
    assert float(pairs.sel(writer="L0H0", reader="L1H0")) == pytest.approx(0.0, abs=1e-9)

    answers = ground_truth.VirtualHead()
    model = answers.model
    tokens = prompts.random_tokens(model, 19)
    _, cache = model.run_with_cache(tokens)
    orders = paths.groups(model, cache, "order").stack
    sizes = [one.abs().max().item() for one in orders.cumsum(0)]
    assert sizes == pytest.approx(list(answers.largest_logit_by_order), abs=1e-6)


def test_before_training_no_term_is_worth_anything():
    from circuits import GPT, load

    model = GPT(load("attn-only-2l").cfg).eval()
    tokens = prompts.repeated(model, 30, batch=4)
    assert importance.by_order(model, tokens).saved.max() < 0.02  # order 0 costs its noise
    assert abs(importance.by_layer(model, tokens)).max() < 0.02
    assert abs(importance.of_virtual_heads(model, tokens)).max() < 0.01


def test_no_gradient_is_followed_and_the_callers_mode_is_left_alone():
    model, seen = tiny(), []

    def metric(logits):
        seen.append(logits.requires_grad)
        return logits.mean()

    importance.of_paths(model, tiny_tokens(), paths.all(model, 0), metric)
    importance.of_virtual_heads(model, tiny_tokens(), metric)
    assert seen and not any(seen) and torch.is_grad_enabled()


def test_without_an_order_the_model_lacks_just_its_paths(deep):
    tokens = tiny_tokens()
    with torch.no_grad():
        orders = paths.groups(deep, deep.run_with_cache(tokens)[1], "order")
    rise = importance.without_order(deep, tokens)
    assert rise.attrs["loss"] == pytest.approx(deep(tokens, return_type="loss").item())
    for order, left in enumerate(rise.values.tolist()):
        others = orders.whole - orders[f"order {order}"]
        assert left + rise.attrs["loss"] == pytest.approx(importance.loss(others, tokens).item())


def test_without_its_embedding_a_model_of_no_layers_guesses():
    model, tokens = tiny(n_layers=0, bias=False, positional_embedding_type="none"), tiny_tokens()
    seen = importance.without_component(model, tokens)
    assert seen.component.values.tolist() == ["embed"]
    norm = model.W_E[tokens[:, 1:]].norm(dim=-1).mean().item()
    assert seen.norm.item() == pytest.approx(norm)
    assert seen.rise.item() + seen.attrs["loss"] == pytest.approx(math.log(model.cfg.d_vocab))
    with torch.no_grad():
        model.W_U.zero_()
    assert importance.without_component(model, tokens).rise.item() == 0  # nothing is read


def test_a_component_that_is_taken_out_is_missing_from_the_final_stream():
    model, tokens = tiny(d_mlp=8, act_fn="gelu"), tiny_tokens()
    seen = importance.without_component(model, tokens)
    _, cache = model.run_with_cache(tokens)
    final = cache["resid_post", model.cfg.n_layers - 1]
    for label, written in (("embed", cache["embed"]), ("L1 mlp", cache["mlp_out", 1])):
        logits = model.unembed(model.ln_final(final - written))
        left = importance.loss(logits, tokens).item() - seen.attrs["loss"]
        assert seen.rise.sel(component=label).item() == pytest.approx(left)


def test_a_measure_of_each_example_has_the_mean_of_all_of_them():
    model, tokens = tiny(), tiny_tokens()
    for measure in (importance.by_order, importance.without_order, importance.by_layer):
        each = importance.by_example(measure, model, tokens)
        assert each.sizes["example"] == len(tokens)
        np.testing.assert_allclose(each.mean("example"), measure(model, tokens), atol=1e-9)
    with pytest.raises(ValueError, match="not empty"):
        importance.by_example(importance.by_order, model, tokens[:0])
