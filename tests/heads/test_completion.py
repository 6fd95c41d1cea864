"""Completion of split words: found in a model built to do so, and in no untrained one."""

import pytest
import torch

from analyses.heads import attention, copying, skip_trigrams
from analyses.heads.skip_trigrams.splits import split_tokens
from circuits import GPT, GPTConfig, ground_truth
from circuits.matrices import FactoredMatrix
from tests.conftest import tiny


def speller(vocabulary, size: int) -> GPT:
    """One head that attends evenly and raises the first and second piece of each split word."""
    cfg = GPTConfig(n_layers=1, d_model=2 * size, n_heads=1, d_head=size, d_vocab=size, n_ctx=32,
                    normalization_type=None, positional_embedding_type="none",
                    bias=False)  # fmt: skip
    model = GPT(cfg, vocabulary).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.embed.W_E[:, :size] = torch.eye(size)
        model.blocks[0].attn.W_V[0, :size] = torch.eye(size)
        for row in split_tokens(model).itertuples():
            out = model.to_single_token(row.out)
            model.blocks[0].attn.W_O[0, model.to_single_token(row.source), size + out] = 20.0
        model.unembed.W_U[size:] = torch.eye(size)
    return model


def test_a_model_that_raises_the_rest_of_a_word_it_has_seen_completes_words(untrained):
    found = skip_trigrams.completion(speller(untrained.tokenizer, untrained.cfg.d_vocab), others=2)
    assert list(found) == ["source", "own", "other", "gain"] and len(found) > 2
    assert (found.own <= 0).all() and (found.gain > 0).mean() > 0.9


def test_an_untrained_model_completes_no_words_and_too_many_others_are_refused(untrained):
    found = skip_trigrams.completion(untrained, others=2)
    assert found.gain.abs().mean() < 0.1
    with pytest.raises(ValueError, match="other words"):
        skip_trigrams.completion(untrained, others=len(found))
    with pytest.raises(ValueError, match="tokenizer"):
        skip_trigrams.completion(tiny())


def test_attention_nearby_is_a_share_of_what_is_not_on_the_first_token():
    model = ground_truth.Induction(d_vocab=40, n_ctx=40).model
    found = attention.nearby(model, reach=6)
    assert (
        found.dims == ("layer", "head", "offset") and float(found.sum("offset").max()) <= 1 + 1e-6
    )
    previous = int(attention.previous_token(model)[0].values.argmax())
    assert float(found.sel(layer=0, head=previous, offset=1)) > 0.9
    with torch.no_grad():
        tokens = torch.randint(0, 29, (3, 9), generator=torch.Generator().manual_seed(0))
        plain = tiny()
        _, cache = plain.run_with_cache(tokens)
    pattern = cache["pattern", 1][:, 2, 1:, 1:]
    expected = pattern.diagonal(-2, -2, -1).sum() / pattern.sum()
    assert float(attention.nearby(plain, tokens)[1, 2, 2]) == pytest.approx(float(expected))


def test_a_centred_copying_score_is_blind_to_what_all_outs_share():
    model = tiny(n_layers=1)
    before = copying.score(model, centred=True)
    with torch.no_grad():
        model.unembed.W_U += torch.randn(12, 1, generator=torch.Generator().manual_seed(0)).double()
    after = copying.score(model, centred=True)
    assert after.values == pytest.approx(before.values)
    assert copying.score(model).values != pytest.approx(before.values)
    full = copying.eigenvalues(model, centred=True)
    own = copying.centre_rows(FactoredMatrix(*(copying.full_OV(model).pair))).eigenvalues
    assert full.values == pytest.approx(own.detach().numpy())
