"""Path patching: the edges together are the node, one alone is what algebra says, and the circuit
that was built is found edge by edge."""

import numpy as np
import pytest
import torch

from analyses import metrics, patching
from analyses.path_patching import path_patching
from circuits import GPT
from circuits.components import every_head
from circuits.stream import stream
from tests.conftest import tiny, tiny_tokens
from tests.test_patching import METRIC, OTHER, TOKENS, cache_of, induction_task


def patched(model: GPT, senders, receivers, tokens=TOKENS, other=OTHER, metric=METRIC, **how):
    clean, corrupted = cache_of(model, tokens), cache_of(model, other)
    return path_patching(
        model, tokens, clean, corrupted, metric, senders=senders, receivers=receivers, **how
    )


def test_the_direct_path_of_a_head_adds_what_it_writes_to_the_final_stream(variant):
    if variant.cfg.n_layers < 2 or not variant.cfg.attn_only:
        return
    seen = patched(variant, ["L0H1", "L1H2"], ["logits"])
    clean, corrupted = cache_of(variant, TOKENS), cache_of(variant, OTHER)
    for (layer, head), row in zip([(0, 1), (1, 2)], seen, strict=True):
        change = (corrupted["z", layer] - clean["z", layer])[:, :, head] @ variant.W_O[layer, head]
        with torch.no_grad():
            logits = variant.unembed(variant.ln_final(stream(variant, clean) + change))
        assert np.allclose(row, METRIC(logits))
    assert np.allclose(seen.base, METRIC(variant(TOKENS)).detach())


@pytest.mark.parametrize("fields", [{}, {"d_mlp": 7, "act_fn": "gelu"}, {"smeared_keys": True}])
def test_all_edges_out_of_a_head_together_are_the_head_itself(fields):
    model = tiny(normalization_type="LN", **fields)
    receivers = [f"L1H{h}.{what}" for h in range(3) for what in "QKV"] + ["logits"]
    mlps = [] if model.cfg.attn_only else ["MLP0", "MLP1"]
    through = [str(head) for head in every_head(model.cfg)]
    node = patching.heads(model, TOKENS, cache_of(model, OTHER), METRIC)
    senders = ["L0H0", "L0H1", "L0H2"]
    if not mlps:
        assert np.allclose(patched(model, senders, receivers), node[0])
    # Or with everything after it working with what reaches it, to the logits alone:
    assert np.allclose(patched(model, senders, ["logits"], through=through), node[0])


def test_a_clean_run_into_itself_changes_nothing(variant):
    if variant.cfg.n_layers < 2:
        return
    receivers = ["L1H0.Q", "L1H1.K", "L1H2.V", "logits"]
    for frozen in (False, True):
        seen = patched(variant, ["L0H1"], receivers, other=TOKENS, freeze_norms=frozen,
                       freeze_mlps=frozen)  # fmt: skip
        assert np.allclose(seen, seen.base)


def test_frozen_mlps_and_norms_hold():
    """With both frozen the direct path is linear: half the change gives half the effect."""
    model = tiny(normalization_type="LN", d_mlp=7, act_fn="gelu")
    clean, corrupted = cache_of(model, TOKENS), cache_of(model, OTHER)
    how = {"senders": ["L0H1", "MLP0"], "receivers": ["logits"], "freeze_norms": True,
           "freeze_mlps": True}  # fmt: skip
    seen = path_patching(model, TOKENS, clean, corrupted, METRIC, **how)
    change = corrupted["mlp_out", 0] - clean["mlp_out", 0]
    with torch.no_grad():
        logits = model.unembed(model.ln_final(stream(model, clean) + change))
    assert np.allclose(seen.sel(sender="MLP0"), METRIC(logits))


def test_the_built_circuit_is_found_edge_by_edge():
    model, clean, corrupted, metric = induction_task()
    found = {
        receiver: float(
            patched(model, ["L0H0"], [receiver], clean, corrupted, metric, at=-1).mean()
        )
        for receiver in ("L1H0.K", "L1H0.Q", "L1H0.V", "logits")
    }
    base = float(patched(model, ["L0H0"], ["logits"], clean, corrupted, metric, at=-1).base.mean())
    assert base > 0.9 and found.pop("L1H0.K") < 0.5
    assert all(abs(value - base) < 1e-6 for value in found.values()), found


def test_names_that_cannot_send_or_receive_are_refused():
    model = tiny()
    for senders, receivers, words in [
        (["L0H1.Q"], ["logits"], "L0H1.Q reads; senders are"),
        (["L0H1"], ["L1H1"], "L1H1 writes; receivers are"),
        (["L1H1"], ["L0H1.K"], "L1H1 comes before none of"),
        (["L0H1"], [], "at least one sender and one receiver"),
        (["MLP0"], ["logits"], "attention-only"),
    ]:
        with pytest.raises(ValueError, match=words):
            patched(model, senders, receivers)
    with pytest.raises(ValueError, match="as many examples and tokens"):
        patched(model, ["L0H0"], ["logits"], other=tiny_tokens(batch=4, pos=5))
    assert metrics.loss(torch.tensor([1]))  # made, not run
