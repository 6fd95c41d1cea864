"""Paths sum to the input of their end, terms of scores sum to the scores, and each path is
right."""

import math
from functools import partial

import pytest
import torch

from circuits import algebra, ground_truth, paths, scores
from circuits.decomposition import frozen
from circuits.model import Head, Path
from tests.benchmarks.bench_model import peak_mebibytes
from tests.conftest import tiny, tiny_tokens


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def run(request, variant_of_any_depth):
    """A model of each architecture, its logits, its run, and the precision of sums."""
    model = variant_of_any_depth.to(request.param)
    with torch.no_grad():
        logits, cache = model.run_with_cache(tiny_tokens())
        # float32 sums of hundreds of paths of size 10^2 round at 1e-4 of their size
        yield model, cache, logits, 1e-10 if request.param == torch.float64 else 1e-4


def ends(model):
    layers = range(model.cfg.n_layers)
    mlps = [f"MLP{layer}" for layer in layers] if model.cfg.d_mlp else []
    return ["logits", *mlps, *(f"L{layer}H1.{what}" for layer in layers for what in "QKV")]


def missing(parts):
    """The largest remainder, as a share of the largest part or 1."""
    return (parts.remainder.abs().max() / parts.stack.abs().max().clamp(min=1.0)).item()


@pytest.mark.parametrize("by", ["order", "start", "layers", "path"])
def test_paths_of_every_grouping_sum_to_what_each_end_reads(run, by):
    model, cache, logits, exact = run
    for end in ends(model)[-4:] if by == "path" else ends(model):
        parts = paths.groups(model, cache, by, end=end)
        assert missing(parts) < exact, (end, parts)
    assert torch.allclose(paths.groups(model, cache, by).whole, logits, atol=exact)


def test_every_path_alone_is_its_term_of_the_sum(run):
    model, cache, _, exact = run
    for end in {ends(model)[0], *ends(model)[-3:]}:
        parts = paths.groups(model, cache, "path", end=end)
        listed = paths.all(model, end=end)
        assert sorted(map(str, listed)) == sorted(parts) and len(set(listed)) == len(listed)
        for path in listed[:: max(1, len(listed) // 20)]:
            value = paths.value(model, cache, path)
            assert torch.allclose(value, parts[str(path)], atol=100 * exact, rtol=exact), path
            assert paths.path(model, str(path)) == path


def test_orders_are_the_sums_of_their_paths():
    model = tiny(n_layers=3, d_mlp=5, act_fn="gelu")
    _, cache = model.run_with_cache(tiny_tokens())
    orders = paths.groups(model, cache, "order")
    for order in range(4):
        terms = [paths.logits(model, cache, path) for path in paths.all(model, order)]
        assert torch.allclose(sum(terms), orders[f"order {order}"])
    layers = paths.groups(model, cache, "layers")
    assert torch.allclose(layers["L0"] + layers["L1"] + layers["L2"], orders["order 1"])
    assert torch.allclose(layers["L0 L1 L2"], orders["order 3"])


@pytest.mark.parametrize("by", ["order", "start", "layers", "path"])
@pytest.mark.parametrize("end", ["logits", "L2H1.K"])
def test_groups_are_held_within_their_bound_or_refused(by, end):
    model = tiny(n_layers=3, n_heads=4, normalization_type="LN", dtype=torch.float32)
    _, cache = model.run_with_cache(tiny_tokens(batch=8, pos=16))
    refused = 0
    for memory in (2**n for n in range(14, 30)):
        with torch.no_grad():
            try:
                how = {"end": end, "memory": memory}
                held = peak_mebibytes(partial(paths.groups, model, cache, by, **how))
            except ValueError as error:
                assert "groups of paths" in str(error)
                refused += 1
                continue
        break
    assert refused and held < memory / 2**20


def test_the_number_of_paths_is_that_of_ways_through_the_heads():
    model = tiny(n_layers=3, bias=False, positional_embedding_type="shortformer")
    for order in range(4):
        assert len(paths.all(model, order)) == math.comb(3, order) * 3**order
    assert len(paths.all(model)) == 4**3


def test_two_layers_are_the_papers_formula():
    """T = Id x W_E W_U + sum_h A^h x (W_E W_OV^h W_U) + sum A^h2 A^h1 x (W_E W_OV^h1 W_OV^h2 W_U),
    from dense weights and patterns alone."""
    model = tiny(normalization_type=None, bias=False, positional_embedding_type="shortformer")
    tokens = tiny_tokens()
    logits, cache = model.run_with_cache(tokens)
    x, W_OV = model.W_E[tokens], model.OV.AB
    A = [cache["pattern", layer] for layer in (0, 1)]
    direct = x @ model.W_U
    single = {(i, h): A[i][:, h] @ x @ W_OV[i, h] @ model.W_U for i in (0, 1) for h in range(3)}
    virtual = {
        (g, h): A[1][:, h] @ A[0][:, g] @ x @ W_OV[0, g] @ W_OV[1, h] @ model.W_U
        for g in range(3) for h in range(3)
    }  # fmt: skip
    assert torch.allclose(direct + sum(single.values()) + sum(virtual.values()), logits)
    of = paths.groups(model, cache, "path")
    assert torch.allclose(of["embed > logits"], direct)
    for (layer, head), term in single.items():
        assert torch.allclose(of[f"embed > L{layer}H{head} > logits"], term)
    for (g, h), term in virtual.items():
        assert torch.allclose(of[f"embed > L0H{g} > L1H{h} > logits"], term)
        moved = algebra.virtual_weights(model, f"embed > L0H{g} > L1H{h} > logits").AB[tokens]
        pattern = paths.virtual_pattern(model, cache, [(0, g), (1, h)])
        assert torch.allclose(pattern @ moved, term)


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


def test_chosen_heads_leave_out_every_path_through_the_others():
    """The oracle runs the model with patterns kept and the other heads zeroed."""
    model = tiny(n_layers=3, normalization_type=None)
    tokens = tiny_tokens()
    logits, cache = model.run_with_cache(tokens)
    chosen = [head for head in ((i, h) for i in range(3) for h in range(3)) if head != (1, 2)]
    parts = paths.groups(model, cache, "start", heads=chosen)

    def silence(z, hook):
        z[:, :, 2] = 0

    keep = ("blocks.*.attn.hook_pattern", lambda pattern, hook: cache[hook.name])
    without = model.run_with_hooks(tokens, fwd_hooks=[("blocks.1.attn.hook_z", silence), keep])
    parts_bias = parts.total  # b_V of the silenced head is in "L1 bias"; take it out
    attn = model.blocks[1].attn
    shift = (attn.b_V[2] @ attn.W_O[2]).expand_as(cache["embed"])
    carried = shift + frozen.through_heads(model, cache, shift, [Head(2, h) for h in range(3)])
    assert torch.allclose(parts_bias - carried @ model.W_U, without)
    assert torch.allclose(logits - without, parts.remainder + carried @ model.W_U)


@pytest.mark.parametrize("by", ["order", "layers", "path"])
def test_score_terms_sum_to_the_scores(run, by):
    model, cache, _, exact = run
    for layer in range(min(model.cfg.n_layers, 2) if by == "path" else model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            parts = scores.groups(model, cache, (layer, head), by)
            assert missing(parts) < exact
            true = cache["attn_scores", layer][:, head]
            shown = parts.whole.masked_fill(true.isinf(), -math.inf)
            size = true[true.isfinite()].abs().max().clamp(min=1.0)
            assert torch.allclose(shown, true, atol=float(exact * size))


def test_a_hook_on_the_scores_shows_in_the_remainder():
    """The whole is the head's score in the run, and not the sum of the paths."""
    model = tiny()
    halve = [("blocks.1.attn.hook_attn_scores", lambda scores, hook: scores / 2)]
    with model.hooks(halve):
        _, cache = model.run_with_cache(tiny_tokens())
    parts = scores.groups(model, cache, "L1H1")
    assert torch.allclose(parts.whole, parts.total / 2)


def test_a_head_named_twice_counts_once():
    model = tiny()
    _, cache = model.run_with_cache(tiny_tokens())
    twice, once = (paths.groups(model, cache, heads=names).total
                   for names in (["L0H1", (0, 1)], ["L0H1"]))  # fmt: skip
    assert torch.allclose(twice, once)


def test_layer_1_has_the_four_groups_of_the_paper():
    """C_QK = Id Id (W_E^T W_QK W_E) + A^hq Id (...) + Id A^hk (...) + A^hq A^hk (...)."""
    model = tiny(normalization_type=None, bias=False, positional_embedding_type="none")
    tokens = tiny_tokens()
    _, cache = model.run_with_cache(tokens)
    groups = scores.groups(model, cache, "L1H2")
    assert list(groups) == [f"order {i} x order {j}" for i in (0, 1) for j in (0, 1)]
    A = cache["pattern", 0]

    def circuit(query=(), key=()):
        return algebra.composed_QK(model, (1, 2), query=query, key=key).AB[
            tokens[:, :, None], tokens[:, None, :]
        ]

    heads = [(0, h) for h in range(3)]
    assert torch.allclose(groups["order 0 x order 0"], circuit().tril())
    on_query = sum(A[:, h] @ circuit(query=[(0, h)]) for _, h in heads)
    assert torch.allclose(groups["order 1 x order 0"], on_query.tril())
    on_key = sum(circuit(key=[(0, h)]) @ A[:, h].mT for _, h in heads)
    assert torch.allclose(groups["order 0 x order 1"], on_key.tril())
    both = sum(
        A[:, g] @ circuit([(0, g)], [(0, h)]) @ A[:, h].mT for _, g in heads for _, h in heads
    )
    assert torch.allclose(groups["order 1 x order 1"], both.tril())
    query, key = (paths.path(model, text) for text in ("embed > L0H1 > L1H2.Q", "embed > L1H2.K"))
    assert torch.allclose(scores.term(model, cache, query, key),
                          (A[:, 1] @ circuit([(0, 1)])).tril())  # fmt: skip


def test_scores_by_token_sum_to_the_score_and_come_from_no_later_token(run):
    model, cache, _, exact = run
    for layer in range(model.cfg.n_layers):
        for what in "QKV":
            read = scores.read_by_token(model, cache, f"L{layer}H1.{what}", 4)
            true = cache[what.lower(), layer][:, 4, 1]
            assert torch.allclose(read.sum(1), true, atol=float(exact * true.abs().max() * 10))
            assert read[:, 5:].eq(0).all()
        split = scores.by_token(model, cache, (layer, 1), dest=5, src=3)
        true = cache["attn_scores", layer][:, 1, 5, 3]
        size = split.abs().max().clamp(min=1.0)
        assert torch.allclose(split.sum((1, 2)), true, atol=float(10 * exact * size))
        assert split[:, 6:].eq(0).all() and split[:, :, 4:].eq(0).all()


def test_an_induction_head_seeks_the_token_before_the_one_it_attends_to():
    """F21 on a known circuit: the key's part is the previous token's, through L0H0."""
    model = ground_truth.Induction().model
    tokens = torch.tensor([[0, 5, 9, 3, 5]])
    _, cache = model.run_with_cache(tokens)
    assert cache["pattern", 1][0, 0, 4, 2] > 0.999  # from the second 5 to the 9 after the first
    split = scores.by_token(model, cache, "L1H0", dest=4, src=2)[0]
    assert split[4, 1] == pytest.approx(100.0) and split.sum() == pytest.approx(100.0)
    groups = scores.groups(model, cache, "L1H0")
    assert groups["order 0 x order 1"][0, 4, 2] == pytest.approx(100.0)
    assert groups["order 0 x order 0"][0, 4, 2] == 0


def test_an_unsmeared_and_a_smeared_key_are_read_where_they_come_from():
    model = tiny(smeared_keys=True, normalization_type=None, n_layers=1, bias=False,
                 positional_embedding_type="none")  # fmt: skip
    _, cache = model.run_with_cache(tiny_tokens())
    read = scores.read_by_token(model, cache, "L0H0.K", 4)
    share = model.blocks[0].attn.alpha[0].sigmoid()
    k = cache["embed"] @ model.W_K[0, 0]
    assert torch.allclose(read[:, 4], share * k[:, 4])
    assert torch.allclose(read[:, 3], (1 - share) * k[:, 3])
    assert read[:, :3].eq(0).all()


def test_a_path_is_written_as_it_is_read():
    model = tiny(n_layers=3)
    path = paths.path(model, "embed > L0H1 > L2H0 > logits")
    assert path == Path("embed", (Head(0, 1), Head(2, 0))) and path.order == 2
    assert str(path) == "embed > L0H1 > L2H0 > logits"
