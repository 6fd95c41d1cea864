"""A block of a shortformer model wants its positions."""

import pytest
import torch

from tests.hooked_transformer.models import ported

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_a_block_of_a_shortformer_model_wants_its_positions():
    with pytest.raises(ValueError, match=r"block\(resid, model.pos_embed\(tokens\)\)"):
        ported(positional_embedding_type="shortformer").blocks[0](torch.zeros(1, 2, 12).double())
