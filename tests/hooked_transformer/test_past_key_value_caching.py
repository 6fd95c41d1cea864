"""Pieces that are read one after the other have the logits of the whole."""

import pytest
import torch

from circuits.hooked_transformer import HookedTransformerKeyValueCache
from tests.hooked_transformer.models import VOCABULARY, speaking

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize("first", ["left", "right"])
@pytest.mark.parametrize("second", ["left", "right"])
def test_pieces_of_a_padded_batch_have_the_logits_of_each_row_alone(first, second):
    """TransformerLens 3.9 has them too, but where the second piece is padded on the left it needs
    prepend_bos=False."""
    model = speaking(dtype="float64", d_mlp=6, act_fn="relu", attn_only=False)
    rows = [[[0, 5, 6, 7], [11, 12]], [[0, 9], [13]]]
    past = HookedTransformerKeyValueCache.init_cache(model.cfg, model.cfg.device, 2)
    for piece, side in enumerate((first, second)):
        model.tokenizer.padding_side = side
        tokens, mask = VOCABULARY.pad([row[piece] for row in rows], side)
        logits = model(tokens, past_kv_cache=past)
    for row, own, got in zip(rows, mask, logits, strict=True):
        alone = model(torch.tensor([row[0] + row[1]]), padding_side="right")[0, -len(row[1]) :]
        assert torch.allclose(got[own], alone)
    assert past.entries[0].past_keys.shape == past[1].past_values.shape == (2, 6, 3, 5)
    assert past.previous_attention_mask.sum(1).tolist() == [6, 3]


def test_a_text_read_token_by_token_begins_with_its_BOS():
    model = speaking(dtype="float64")
    tokens, past = model.to_tokens("the cat"), HookedTransformerKeyValueCache.init_cache(model.cfg)
    read = [model(token[:, None], past_kv_cache=past) for token in tokens.unbind(1)]
    assert torch.allclose(torch.cat(read, 1), model(tokens))
    with pytest.raises(ValueError, match=r"the second argument is the device: write init_cache"):
        HookedTransformerKeyValueCache.init_cache(model.cfg, 2)
