"""Folding: plainer weights, the same log-probabilities."""

import pytest
import torch

from circuits.model import folding
from tests.conftest import NORMS, POSITIONS, ROTARY, tiny, tiny_tokens

TOKENS = tiny_tokens()
FIELDS = [
    {"normalization_type": norm, "positional_embedding_type": kind, **more}
    for norm, kind, more in zip(
        (*NORMS, "LN", "RMS", "LN"), (*POSITIONS, "standard", "sinusoidal", "none"),
        ({}, {"smeared_keys": True}, {}, {"bias": False}, {}, {"d_mlp": 7, "act_fn": "gelu"},
         {"d_mlp": 7, "act_fn": "relu"}, {"bias": False}), strict=True,
    )
] + ROTARY  # fmt: skip


def same(before, after) -> None:
    with torch.no_grad():
        old, new = (model(TOKENS).log_softmax(-1) for model in (before, after))
    assert torch.allclose(old, new, atol=1e-10)


@pytest.mark.parametrize("fields", FIELDS, ids=lambda fields: "-".join(map(str, fields.values())))
def test_log_probabilities_are_kept(fields):
    model = tiny(**fields)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    same(model, folding.center_unembedding(model))
    same(model, folding.fold_values(model))
    if not (model.cfg.shortformer and fields["normalization_type"] in ("LN", "RMS")):
        folded = folding.fold_layer_norm(model)
        same(model, folded)
        assert folded.cfg.normalization_type in (None, "LNPre", "RMSPre")
        assert not any(".ln" in name for name in folded.state_dict())
    if fields["normalization_type"] in ("LN", "LNPre"):
        same(model, folding.center_writing(model))
    assert all(model.state_dict()[name].equal(weight) for name, weight in before.items())


def test_folding_layer_norm_keeps_every_pattern_and_what_is_written():
    model = tiny(normalization_type="LN", d_mlp=7, act_fn="gelu")
    with torch.no_grad():
        old, new = (one.run_with_cache(TOKENS)[1]
                    for one in (model, folding.fold_layer_norm(model)))  # fmt: skip
    for key in (("pattern", 1), ("q", 1), ("v", 0), ("z", 1), ("post", 1), ("resid_post", 1)):
        assert torch.allclose(old[key], new[key], atol=1e-10), key


def test_a_centred_stream_has_mean_zero_and_a_centred_unembedding_mean_logit_zero():
    model = tiny(normalization_type="LN", positional_embedding_type="sinusoidal")
    with torch.no_grad():
        cache = folding.center_writing(model).run_with_cache(TOKENS)[1]
        assert cache["resid_post", 1].mean(-1).abs().max() < 1e-12
        assert folding.center_unembedding(model)(TOKENS).mean(-1).abs().max() < 1e-12
        assert model(TOKENS).mean(-1).abs().max() > 0.01


def test_folded_value_biases_are_gone_and_all_steps_together_are_one():
    model = tiny(normalization_type="LN", positional_embedding_type="standard")
    folded = folding.fold_values(model)
    assert not folded.blocks[1].attn.b_V.any() and model.blocks[1].attn.b_V.any()
    processed = folding.process_weights(model)
    same(model, processed)
    assert processed.cfg.normalization_type == "LNPre" and not processed.blocks[0].attn.b_V.any()
    alone = folding.process_weights(
        model, fold_ln=False, center_writing_weights=False, center_unembed=False
    )
    assert all(alone.state_dict()[name].equal(weight)
               for name, weight in folded.state_dict().items())  # fmt: skip


def test_what_cannot_be_folded_is_refused_in_words():
    with pytest.raises(ValueError, match="added after the norm"):
        folding.fold_layer_norm(
            tiny(normalization_type="RMS", positional_embedding_type="shortformer")
        )
    for norm in (None, "RMS", "RMSPre"):
        with pytest.raises(ValueError, match="does not subtract the mean"):
            folding.center_writing(tiny(normalization_type=norm))
