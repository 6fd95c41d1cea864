"""Parts say what is missing."""

import pytest
import torch

from circuits.decomposition import Parts


def test_parts_say_what_is_missing():
    parts = Parts(["a", "b"], torch.tensor([[1.0], [2.0]]), torch.tensor([3.5]))
    assert parts.remainder.item() == 0.5 and "5.0e-01" in repr(parts) and list(parts) == ["a", "b"]
    with pytest.raises(KeyError, match="no part 'c'"):
        parts["c"]
