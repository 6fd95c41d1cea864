"""The utils are the few that small models need."""

import pytest
import torch

from circuits.hooked_transformer import utils
from tests.hooked_transformer.models import TOKENS, biased

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_utils_are_the_few_that_small_models_need():
    name = utils.get_act_name
    assert name("k", 6, "a") == name("k6") == name("key", 6) == "blocks.6.attn.hook_k"
    assert name("scale4ln1") == name("scale", 4, "ln1") == "blocks.4.ln1.hook_scale"
    assert name("resid_pre", 2) == "blocks.2.hook_resid_pre" and name("embed") == "hook_embed"
    model, mask = biased(), torch.ones(3, 7, dtype=torch.long)
    logits, mask[0, 5:] = model(TOKENS), 0
    losses = utils.lm_cross_entropy_loss(logits, TOKENS, per_token=True)
    masked = utils.lm_cross_entropy_loss(logits, TOKENS, mask)
    assert torch.allclose(masked, torch.cat([losses[0, :4], losses[1:].flatten()]).mean())
    hits = utils.lm_accuracy(logits, TOKENS, per_token=True)
    assert hits.float().mean() == utils.lm_accuracy(logits, TOKENS) and hits.shape == (3, 6)
    assert utils.to_numpy(model.W_E).shape == (29, 12) and utils.get_device().type in (
        "cpu",
        "cuda",
    )
