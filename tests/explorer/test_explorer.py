"""The explorer's page holds numbers of the cache, and text that stays text."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from analyses import attention, explorer, logit_effects
from analyses.cli.main import app
from circuits import GPT, GPTConfig
from tests.conftest import tiny, tiny_tokens

EVIL = 'a</script><script>alert(1)</script><img src=x onerror=alert(2)> & "b" @DATA@ <!-- '


def data_of(page: explorer.Page) -> dict:
    """What the page's script reads."""
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.html, re.S)
    assert len(found) == 1
    return json.loads(found[0])


def test_the_page_holds_the_patterns_of_the_run_to_half_a_step():
    model, tokens = tiny(d_mlp=11, act_fn="gelu", normalization_type="LN"), tiny_tokens(1, 16)
    _, cache = model.run_with_cache(tokens)
    data = data_of(explorer.page(model, tokens))
    raw, weighted, effect = explorer.unpacked(data["packed"], 6, 16)
    patterns = [cache["pattern", layer] for layer in range(2)]
    true = torch.cat(patterns, 1)[0].detach().numpy()
    assert np.abs(raw / 255 - true).max() <= 1 / 510 + 1e-7
    moved = [attention.value_weighted(p, cache["v", i]) for i, p in enumerate(patterns)]
    true = torch.cat(moved, 1)[0].detach().numpy()
    assert np.abs(weighted / 255 - true).max() <= 1 / 510 + 1e-7
    assert (raw != weighted).any()
    true = logit_effects.by_source(model, tokens).values.reshape(6, 16, 16)
    largest = np.array([head["largest"] for head in data["heads"]])[:, None, None]
    lower = np.tril_indices(16)
    missed = np.abs((effect.astype(float) - 128) / 127 * largest - true) / largest
    assert missed[:, *lower].max() <= 1 / 254 + 1e-3  # the scale is kept to four digits
    shown = [head["effects"] for head in data["heads"]]
    np.testing.assert_allclose(shown, true.sum(-1), rtol=1e-3, atol=1e-6)


def test_packing_loses_nothing_below_the_diagonal():
    values = np.random.default_rng(0).integers(0, 256, (3, 2, 5, 5), np.uint8)
    again = explorer.unpacked(explorer.packed(values), 2, 5)
    assert (again == np.tril(values)).all()


def test_twelve_heads_on_256_tokens_are_less_than_a_megabyte():
    cfg = GPTConfig(n_layers=2, n_heads=6, d_model=96, d_head=16, d_vocab=300, n_ctx=256, seed=1)
    model = GPT(cfg).eval()
    with torch.no_grad():
        for weight in (model.blocks[0].attn.W_Q, model.blocks[1].attn.W_Q):
            weight *= 30  # neither uniform nor one-hot, which would be smaller
    tokens = tiny_tokens(1, 256, 300)
    page = explorer.page(model, tokens)
    packed = data_of(page)["packed"]
    used = explorer.unpacked(packed, 12, 256)[0]
    assert len(np.unique(used)) > 150 and (used > 0).sum() > 50_000
    assert len(page.html.encode()) < 1e6


def test_markup_in_a_prompt_is_text(shipped):
    page = explorer.page(shipped, EVIL, title=EVIL)
    assert page.html.count("</script>") == 2 and "<img" not in page.html
    data = data_of(page)
    assert data["title"] == EVIL
    assert "".join(data["tokens"]).replace("␣", " ") == f"BOS{EVIL}"
    assert not re.search(r"https?://", page.html.replace("http://www.w3.org/2000/svg", ""))
    frame = page._repr_html_()
    assert frame.count("<") == 2 and "height:820px" in frame and 'sandbox="allow-scripts"' in frame


def test_a_page_that_cannot_be_says_why(shipped):
    model = tiny()
    with pytest.raises(ValueError, match="0 layers"):
        explorer.page(tiny(n_layers=0), tiny_tokens(1))
    with pytest.raises(ValueError, match="no tokenizer"):
        explorer.page(model, "text")
    with pytest.raises(ValueError, match="n_ctx=16"):
        explorer.page(model, tiny_tokens(1, 17))
    with pytest.raises(ValueError, match=r"one row .* \[3, 7\]"):
        explorer.page(model, tiny_tokens(3))
    with pytest.raises(ValueError, match=r"two or more tokens, got \[1, 1\]"):
        explorer.page(shipped, "")
    with pytest.raises(ValueError, match="n_ctx"):
        explorer.page(shipped, "a word " * 400)


def test_without_a_tokenizer_tokens_are_numbers(tmp_path):
    tokens = tiny_tokens(1)[0]
    page = explorer.page(tiny(), tokens)
    assert data_of(page)["tokens"] == [str(token) for token in tokens.tolist()]
    assert page.save(tmp_path / "page.html").read_text(encoding="utf-8") == page.html
    assert {head["role"] for head in data_of(page)["heads"]} <= set(explorer.ROLES)


def test_the_command_writes_the_page(tmp_path):
    out = tmp_path / "page.html"
    run = CliRunner().invoke(app, ["explore", "attn-only-2l", "two words", "--out", str(out)])
    assert run.exit_code == 0, run.output
    assert "kB" in run.output and data_of(explorer.Page(out.read_text()))["title"] == "attn-only-2l"
    piped = ["explore", "attn-only-2l", "-", "--out", str(out)]
    assert CliRunner().invoke(app, piped, input="piped in").exit_code == 0
    assert "pip" in "".join(data_of(explorer.Page(out.read_text()))["tokens"])


@pytest.fixture(scope="module")
def shipped() -> GPT:
    from circuits import load

    return load("attn-only-2l")


def test_the_template_is_beside_the_module():
    assert (Path(explorer.__file__).parent / "templates/explorer.html").is_file()
