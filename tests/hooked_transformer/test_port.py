"""The port: a script for HookedTransformer runs with its import changed, and prints equal numbers.

ported_script.txt is what it printed with transformer-lens 3.9.0 on these weights:
`python ported_script.py`, beside induction.pth as the test writes it.
"""

from pathlib import Path

import pytest
import torch

from analyses import attention
from circuits.ground_truth import InductionAmongDistractors
from tests.conftest import tiny
from tests.hooked_transformer.models import ported

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SCRIPT = Path(__file__).with_name("ported_script.py")


def hooked_transformer_weights() -> dict[str, torch.Tensor]:
    """The state dict that HookedTransformer.state_dict() gives of an induction circuit among random
    heads, with some noise on every weight and bias, and with its masks."""
    model = InductionAmongDistractors(20, 60, distractors=3).model
    generator = torch.Generator().manual_seed(0)
    weights = dict(model.state_dict())
    for layer in range(2):
        for letter in "QKV":
            weights[f"blocks.{layer}.attn.b_{letter}"] = torch.zeros(4, 60)
        weights[f"blocks.{layer}.attn.b_O"] = torch.zeros(120)
    weights["unembed.b_U"] = torch.zeros(20)
    noisy = {
        name: w.double() + 0.003 * torch.randn(w.shape, generator=generator, dtype=torch.float64)
        for name, w in sorted(weights.items())
    }
    masks = {}
    for layer in range(2):
        masks[f"blocks.{layer}.attn.mask"] = torch.ones(60, 60).tril().bool()
        masks[f"blocks.{layer}.attn.IGNORE"] = torch.tensor(-torch.inf)
    return {**noisy, **masks}


def test_the_script_prints_here_what_it_printed_with_transformer_lens(
    tmp_path, monkeypatch, capsys
):
    """The script asserts by itself that terms sum to logits, scores and streams."""
    torch.save(hooked_transformer_weights(), tmp_path / "induction.pth")
    monkeypatch.chdir(tmp_path)
    text = SCRIPT.read_text()
    ported = text.replace("from transformer_lens import", "from circuits.hooked_transformer import")
    assert ported != text
    exec(compile(ported, str(SCRIPT), "exec"), {"__name__": "ported"})
    ours = capsys.readouterr().out.splitlines()
    theirs = SCRIPT.with_suffix(".txt").read_text().splitlines()
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        (name, _, numbers), (their_name, _, expected) = mine.partition(":"), other.partition(":")
        assert name == their_name
        if "heads" in name or name == "the largest":
            assert numbers == expected, name
        else:
            assert list(map(float, numbers.split())) == pytest.approx(
                list(map(float, expected.split())), abs=1e-5
            ), name
    assert "previous-token heads: ['0.3']" in ours and "induction heads: ['1.0']" in ours


def test_analyses_take_it_as_the_gpt_it_is():
    gpt = tiny()
    assert attention.previous_token(ported()).equals(attention.previous_token(gpt))
