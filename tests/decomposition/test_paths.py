"""Paths sum to what their end reads, and each path alone is right."""

import math
from functools import partial

import pytest
import torch

from circuits import algebra, paths
from circuits.decomposition import frozen
from circuits.model import Head, Path
from tests.benchmarks.bench_model import peak_mebibytes
from tests.conftest import ROTARY, tiny, tiny_tokens
from tests.decomposition.conftest import missing


def test_a_virtual_pattern_is_the_product_of_patterns_and_its_rows_sum_to_one():
    model = tiny(n_layers=3)
    _, cache = model.run_with_cache(tiny_tokens())
    pattern = paths.virtual_pattern(model, cache, ["L0H1", "L1H2", "L2H0"])
    A = [cache["pattern", layer] for layer in range(3)]
    assert torch.allclose(pattern, A[2][:, 0] @ A[1][:, 2] @ A[0][:, 1])
    assert torch.allclose(pattern.sum(-1), torch.ones(3, 7, dtype=torch.float64))


def ends(model):
    layers = range(model.cfg.n_layers)
    mlps = [f"MLP{layer}" for layer in layers] if model.cfg.d_mlp else []
    return ["logits", *mlps, *(f"L{layer}H1.{what}" for layer in layers for what in "QKV")]


@pytest.mark.parametrize("by", ["order", "start", "layers", "path"])
def test_paths_of_every_grouping_sum_to_what_each_end_reads(exact_run, by):
    model, cache, logits, exact = exact_run
    for end in ends(model)[-4:] if by == "path" else ends(model):
        parts = paths.groups(model, cache, by, end=end)
        assert missing(parts) < exact, (end, parts)
    assert torch.allclose(paths.groups(model, cache, by).whole, logits, atol=exact)


def test_every_path_alone_is_its_term_of_the_sum(exact_run):
    model, cache, _, exact = exact_run
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


def test_a_head_named_twice_counts_once():
    model = tiny()
    _, cache = model.run_with_cache(tiny_tokens())
    twice, once = (paths.groups(model, cache, heads=names).total
                   for names in (["L0H1", (0, 1)], ["L0H1"]))  # fmt: skip
    assert torch.allclose(twice, once)


def test_a_path_is_written_as_it_is_read():
    model = tiny(n_layers=3)
    path = paths.path(model, "embed > L0H1 > L2H0 > logits")
    assert path == Path("embed", (Head(0, 1), Head(2, 0))) and path.order == 2
    assert str(path) == "embed > L0H1 > L2H0 > logits"


@torch.no_grad()
def test_a_gated_mlp_reads_twice_and_paths_sum_to_both_reads():
    model = tiny(**ROTARY[1])
    _, cache = model.run_with_cache(tiny_tokens())
    for end, kept in (("MLP2", "pre"), ("MLP2.linear", "pre_linear")):
        for by in ("order", "start", "path"):
            assert missing(paths.groups(model, cache, by, end=end)) < 1e-10
        assert paths.groups(model, cache, end=end).whole.equal(cache[kept, 2])
    reads = algebra.neuron_reads(model), algebra.neuron_reads(model, "linear")
    for read, W in zip(reads, (model.W_gate, model.W_in), strict=True):
        gain = torch.stack([block.ln2.w for block in model.blocks])[..., None]
        assert torch.allclose(read.AB, model.W_E @ (gain * W))
    for end, W in (("MLP1", model.W_gate), ("MLP1.linear", model.W_in)):
        folded = model.blocks[1].ln2.w[:, None] * W[1]
        assert torch.allclose(algebra.virtual_weights(model, f"embed > {end}").factors[-1], folded)


def test_only_a_gated_mlp_has_a_linear_read():
    for ask in (lambda: paths.path(tiny(d_mlp=7, act_fn="gelu"), "embed > MLP1.linear"),
                lambda: paths.path(tiny(**ROTARY[1]), "embed > MLP1.gate")):  # fmt: skip
        with pytest.raises(ValueError, match=r"there is no 'MLP1\.\w+': an MLP reads as MLP1"):
            ask()
    with pytest.raises(ValueError, match="no linear half: gated_mlp=False"):
        algebra.neuron_reads(tiny(d_mlp=7, act_fn="gelu"), "linear")
    with pytest.raises(ValueError, match="no W_gate: gated_mlp=False"):
        _ = tiny(d_mlp=7, act_fn="gelu").W_gate
