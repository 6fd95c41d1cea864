"""The first norm, folded in, is what layer 0 sees."""

import torch

from analyses import skip_trigrams
from tests.heads.skip_trigrams.talkers import talker


def test_the_first_norm_is_what_layer_0_sees():
    model = talker(normalization_type="LN")
    read = skip_trigrams.through_first_norm(model)
    norm, W_E = model.blocks[0].ln1, model.W_E
    seen = norm(W_E[None])[0] - norm.b
    torch.testing.assert_close(read.W_E * norm.w, seen)
    assert torch.equal(skip_trigrams.through_first_norm(talker(normalization_type=None)).W_E,
                       talker(normalization_type=None).W_E)  # fmt: skip
    assert not torch.equal(model.W_E, read.W_E)
