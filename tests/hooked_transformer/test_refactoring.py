"""Refactored heads compute the same by plainer factors."""

import pytest
import torch

from tests.hooked_transformer.models import TOKENS, ported

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("fields", [
    {"d_mlp": 6, "act_fn": "relu"}, {"bias": False, "positional_embedding_type": "shortformer"},
    {"d_head": 15, "smeared_keys": True}])  # fmt: skip
def test_refactored_heads_compute_the_same_by_plainer_factors(fields):
    model = ported(**fields)
    logits, before = model.run_with_cache(TOKENS)
    model.process_weights_(False, False, False, True, False)
    after_logits, after = model.run_with_cache(TOKENS)
    assert torch.allclose(after_logits, logits)
    assert torch.allclose(after["pattern", 1], before["pattern", 1])
    rank = min(model.cfg.d_head, 12)
    gram = (model.W_O @ model.W_O.mT)[:, :, :rank, :rank]
    assert torch.allclose(gram, torch.eye(rank, dtype=gram.dtype).expand_as(gram))
    norms = [(W.square().sum(2) + b.square()).sort().values for W, b in
             ((model.W_Q, model.b_Q), (model.W_K, model.b_K))]  # fmt: skip
    assert torch.allclose(*norms) and not model.b_V.any()
