"""What heads and neurons write is what the hooks see, and passes each norm with its own scale."""

import copy

import pytest

from circuits import residual
from tests.conftest import tiny, tiny_tokens
from tests.decomposition.conftest import close


def test_head_and_neuron_results_are_the_hooks_and_sum_to_what_the_layer_writes(run):
    model, _, _, dtype = run
    _, cache = model.run_with_cache(tiny_tokens(), names_filter="*")
    for layer, block in enumerate(model.blocks):
        heads = residual.head_results(model, cache, layer)
        assert close(heads, cache["result", layer], dtype)
        b_O = 0 if block.attn.b_O is None else block.attn.b_O
        assert close(heads.sum(2) + b_O, cache["attn_out", layer], dtype)
        if block.mlp is not None:
            neurons = residual.neuron_results(model, cache, layer)
            b_out = 0 if block.mlp.b_out is None else block.mlp.b_out
            assert close(neurons.sum(2) + b_out, cache["mlp_out", layer], dtype)
            some = residual.neuron_results(model, cache, layer, [4, 1])
            assert close(some, neurons[:, :, [4, 1]], dtype)


def test_parts_pass_every_norm_with_the_scale_of_the_place_where_they_are_read(run):
    """Their sum behind the norm, and its bias, is the input of the heads, the MLP and the
    unembedding at this place. The scale is of this place and of no other layer: TransformerLens
    issue 1076."""
    model, cache, logits, dtype = run
    for layer, block in enumerate(model.blocks):
        parts = residual.components(model, cache, layer)
        read = residual.through_norm(model, cache, parts.stack, layer).sum(0)
        read = read + residual.norm_bias(model, layer)
        assert close(read, block.ln1(parts.whole), dtype)
        if block.mlp is not None:
            at_mid = not model.cfg.parallel_attn_mlp  # there the MLP reads what the heads read
            parts = residual.components(model, cache, layer, mid=at_mid)
            read = residual.through_norm(model, cache, parts.stack, layer, mid=True).sum(0)
            read = read + residual.norm_bias(model, layer, mid=True)
            assert close(read, block.ln2(parts.whole), dtype)
    parts = residual.components(model, cache)
    read = residual.through_norm(model, cache, parts.stack).sum(0) + residual.norm_bias(model)
    assert close(model.unembed(read), logits, dtype)


def test_a_copied_model_is_another_model():
    model = tiny()
    _, cache = model.run_with_cache(tiny_tokens())
    with pytest.raises(ValueError, match="another model's run"):
        residual.components(copy.deepcopy(model), cache)
