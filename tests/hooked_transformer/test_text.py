"""Texts are begun, padded, cut and generated as they were."""

import pytest
import torch

from circuits.hooked_transformer import HookedTransformer, HookedTransformerKeyValueCache
from circuits.hooked_transformer import text as texts_of_it
from circuits.hooked_transformer.text import checked_side
from circuits.io import bridge
from tests.hooked_transformer.models import SHAPE, TOKENS, VOCABULARY, speaking

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_texts_are_begun_padded_and_cut_as_they_were():
    model = speaking(n_ctx=8)
    short, long = model.to_tokens("cat"), model.to_tokens("the cat sat on the mat")
    assert short[0, 0] == model.tokenizer.bos_token_id == 0 and long.shape[1] <= 8
    both = model.to_tokens(["cat", "the cat sat on"])
    left = model.to_tokens(["cat", "the cat sat on"], padding_side="left")
    n = short.shape[1]
    assert both[0, :n].equal(short[0]) and not both[0, n:].any()
    assert left[0, -n:].equal(short[0]) and not left[0, :-n].any() and left[1].equal(both[1])
    assert model.to_tokens("cat", False)[0].equal(short[0, 1:])
    assert model.to_tokens("q" * 30).shape == (1, 8)
    assert model.to_tokens("q" * 30, truncate=False).shape == (1, 31)
    bare = speaking(default_prepend_bos=False)
    assert bare.to_tokens("cat").equal(short[:, 1:]) and bare("cat").shape[1] == n - 1
    assert bare("cat", prepend_bos=True).equal(bare(short))
    side = HookedTransformer(model.cfg, VOCABULARY, default_padding_side="left")
    assert side.to_tokens(["cat", "the cat sat on"]).equal(left)
    with pytest.raises(ValueError, match="padding_side='up'; choose left or right"):
        checked_side("up")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("position", ["standard", "shortformer"])
def test_a_padded_text_has_the_logits_and_the_loss_it_has_alone(side, position):
    model = speaking(positional_embedding_type=position, dtype="float64")
    texts = ["cat", "the cat sat"]
    together = model(texts, padding_side=side)
    tokens = model.to_tokens(texts, padding_side=side)
    assert model(tokens, padding_side=side).shape == together.shape
    losses = []
    for row, text in enumerate(texts):
        alone = model(text)
        own = slice(alone.shape[1]) if side == "right" else slice(-alone.shape[1], None)
        assert torch.allclose(together[row, own], alone[0])
        assert torch.allclose(model(tokens, padding_side=side)[row, own], alone[0])
        losses.append(model(text, return_type="loss", loss_per_token=True))
    loss = model(texts, return_type="loss", padding_side=side)
    assert torch.allclose(loss, torch.cat(losses, 1).mean())
    if side == "left":
        model.default_padding_side = "left"
        assert torch.allclose(model(tokens), together) and torch.allclose(model(texts), together)
        unmasked = model(tokens, padding_side="right")
        assert not torch.allclose(unmasked, together)
    with pytest.raises(ValueError, match="attention_mask is for tokens"):
        model(texts, attention_mask=torch.ones_like(tokens))


def test_the_padding_side_is_that_of_the_tokenizer():
    model, texts = speaking(), ["cat", "the cat sat on"]
    left = model.to_tokens(texts, padding_side="left")
    model.tokenizer.padding_side = "left"
    assert model.default_padding_side == "left" and model.to_tokens(texts).equal(left)
    model.default_padding_side = "right"
    assert model.tokenizer.padding_side == "right" and not model.to_tokens(texts).equal(left)
    fast = bridge._fast_tokenizer(VOCABULARY)
    fast.padding_side = "left"
    assert HookedTransformer(model.cfg, fast).to_tokens(texts).equal(left)
    assert HookedTransformer(model.cfg, fast, default_padding_side="right").to_tokens(texts).equal(
        model.to_tokens(texts))  # fmt: skip
    with pytest.raises(ValueError, match="padding_side='middle'; choose left or right"):
        model.tokenizer.padding_side = "middle"
    model.tokenizer.pad_token = model.tokenizer.eos_token  # as it is
    model.tokenizer.pad_token_id = model.tokenizer.eos_token_id
    with pytest.raises(AttributeError, match="pad_token cannot be set"):
        model.tokenizer.pad_token = "the"


def test_tokens_and_text_go_back_and_forth():
    model = speaking()
    tokens = model.to_tokens(["the cat", "the mat"])
    assert model.to_string(tokens[0, 1:]) == "the cat"
    assert model.to_string(tokens[:, 1:]) == ["the cat", "the mat"]
    assert model.to_str_tokens("the cat")[0] == "<|endoftext|>"
    assert "".join(model.to_str_tokens("the cat", prepend_bos=False)) == "the cat"
    assert model.to_str_tokens(["the cat", "mat"]) == [model.to_str_tokens("the cat"),
                                                       model.to_str_tokens("mat")]  # fmt: skip
    assert model.to_single_str_token(0) == "<|endoftext|>"
    twice = torch.tensor([5, 9, 5, 7])
    assert [model.get_token_position(5, twice, mode) for mode in ("first", "last")] == [0, 2]
    with pytest.raises(ValueError, match="expected mode first or last and 6 in one row"):
        model.get_token_position(6, twice)
    speech = model.tokenizer
    assert (
        len(speech) == speech.vocab_size == VOCABULARY.size
        and speech.decode(speech.encode("mat")) == "mat"
    )
    assert speech.batch_decode(tokens[:, 1:]) == ["the cat", "the mat"]
    assert speech.eos_token_id == speech.pad_token_id == 0 and len(speech.get_vocab()) == len(
        speech
    )


def test_a_tokenizer_comes_from_transformers_or_by_name_when_text_is_wanted(tmp_path, monkeypatch):
    fast = bridge._fast_tokenizer(VOCABULARY)
    fast.save_pretrained(tmp_path)
    cfg = {**SHAPE, "d_vocab": 270}
    expected = speaking().to_tokens("the cat")
    assert HookedTransformer(cfg, fast).to_tokens("the cat").equal(expected)
    named = HookedTransformer({**cfg, "tokenizer_name": str(tmp_path)})
    assert named.to_tokens("the cat").equal(expected)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    absent = HookedTransformer({**cfg, "tokenizer_name": str(tmp_path / "no" / "such")})
    assert absent(TOKENS).shape == (3, 7, 270)
    absent.process_weights_()
    for _ in range(2):  # the second time without another try
        with pytest.raises(OSError, match="give the model a tokenizer of your own, or give it tok"):
            absent.to_tokens("the cat")
        monkeypatch.setattr(texts_of_it, "vocabulary_by_name", None)
    past = HookedTransformerKeyValueCache.init_cache(absent.cfg, batch_size=3)
    with pytest.raises(OSError, match="pads cannot be found without a tokenizer: give an att"):
        absent(TOKENS, past_kv_cache=past)
    assert absent(TOKENS, past_kv_cache=past, attention_mask=TOKENS >= 0).shape == (3, 7, 270)
    absent.set_tokenizer(fast)
    assert absent.to_tokens("the cat").equal(expected)
    assert absent.tokenizer.name_or_path == fast.name_or_path
    with pytest.raises(ValueError, match="at most 29 tokens"):
        HookedTransformer(SHAPE, VOCABULARY)


def test_generation_takes_the_arguments_it_took():
    model = speaking()
    greedy = model.generate("the cat", 4, do_sample=False, verbose=False, stop_at_eos=False)
    assert greedy.startswith("the cat") and isinstance(greedy, str)
    tokens = model.to_tokens("the cat")
    options = {"max_new_tokens": 6, "stop_at_eos": False}
    torch.manual_seed(0)
    one, two = model.generate(tokens, **options), model.generate(tokens, **options)
    torch.manual_seed(0)
    assert not one.equal(two) and model.generate(tokens, **options).equal(one)
    assert model.generate(tokens, seed=3, **options).equal(
        model.generate(tokens, seed=3, **options)
    )
    texts, greedily = ["cat", "the cat sat"], {"do_sample": False, **options}
    alone = [model.generate(text, **greedily) for text in texts]
    padded = model.to_tokens(texts, padding_side="left")
    said = model.generate(padded, padding_side="left", return_type="str", **greedily)
    assert (
        model.generate(texts, **greedily)
        == alone
        == [s.removeprefix("<|endoftext|>") for s in said]
    )
    right = model.to_tokens(texts, padding_side="right")
    said = model.generate(right, return_type="str", **greedily)
    assert alone == [s.removeprefix("<|endoftext|>") for s in said]
    assert model.generate(max_new_tokens=2, return_type="tokens", stop_at_eos=False).shape == (1, 3)
