"""Path patching: all edges of a node together are the node, one edge agrees with the algebra, and
built circuits are found edge by edge."""

import numpy as np
import pytest
import torch

from analyses import Task, patching
from analyses.causal.path_patching import path_patching
from circuits import GPT
from circuits.decomposition import stream, through_norm
from circuits.interventions import edit
from circuits.model import every_head
from tests.causal.by_hand import METRIC, OTHER, TOKENS, by_hand, cache_of, induction_task
from tests.conftest import tiny, tiny_tokens


def patched(model: GPT, senders, receivers, tokens=TOKENS, other=OTHER, metric=METRIC, **how):
    task = Task(model, tokens, other, metric)
    return path_patching(task, senders=senders, receivers=receivers, **how)


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
    node = patching.heads(Task(model, TOKENS, OTHER, METRIC), into="clean")
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


def test_mlps_work_with_what_reaches_them_unless_they_are_frozen():
    model = tiny(normalization_type="LN", d_mlp=7, act_fn="gelu")
    clean, corrupted = cache_of(model, TOKENS), cache_of(model, OTHER)
    change = (corrupted["z", 0] - clean["z", 0])[:, :, 1] @ model.W_O[0, 1]
    with torch.no_grad():
        alone = METRIC(model.unembed(model.ln_final(stream(model, clean) + change)))
    frozen = patched(model, ["L0H1"], ["logits"], freeze_mlps=True)
    assert np.allclose(frozen[0], alone)
    assert not np.allclose(patched(model, ["L0H1"], ["logits"])[0], alone)


def test_with_frozen_norms_a_key_changes_by_what_the_sender_adds_to_it():
    model = tiny(normalization_type="LN")
    clean, corrupted = cache_of(model, TOKENS), cache_of(model, OTHER)
    change = (corrupted["z", 0] - clean["z", 0])[:, :, 1] @ model.W_O[0, 1]
    added = through_norm(model, clean, change, 1) @ model.W_K[1, 2]
    keys = clean["k", 1].clone()
    keys[:, :, 2] += added.detach()
    expected = by_hand(model, [edit(model, ("k", 1), keys, head=2)])
    assert np.allclose(patched(model, ["L0H1"], ["L1H2.K"], freeze_norms=True)[0], expected)
    assert not np.allclose(patched(model, ["L0H1"], ["L1H2.K"])[0], expected)


def test_the_built_circuit_is_found_edge_by_edge():
    task = induction_task()
    found = {
        receiver: float(path_patching(task, senders=["L0H0"], receivers=[receiver]).mean())
        for receiver in ("L1H0.K", "L1H0.Q", "L1H0.V", "logits")
    }
    base = float(task.clean_value.mean())
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
    with pytest.raises(ValueError, match="must have the same shape"):
        patched(model, ["L0H0"], ["logits"], other=tiny_tokens(batch=4, pos=5))
