import json

import pytest
import torch

from circuits import GPT, GPTConfig, load, save
from circuits.data import train_tokenizer
from circuits.io import saved_config
from circuits.model import Vocabulary
from tests.conftest import TINY, tiny, tiny_tokens
from tests.model.test_vocabulary import llama_like


def test_a_saved_model_comes_back_equal(tmp_path, variant):
    save(variant, tmp_path / "model", dtype=torch.float64)
    again = load(tmp_path / "model", dtype=torch.float64)
    assert again.cfg == variant.cfg and not again.training
    tokens = tiny_tokens()
    assert torch.allclose(again(tokens), variant(tokens), rtol=1e-5, atol=1e-5)


def test_half_precision_is_what_is_written_and_float32_what_is_read(tmp_path):
    from safetensors.torch import load_file

    model = tiny(dtype=torch.float32)
    save(model, tmp_path, dtype=torch.float16)
    weights = load_file(tmp_path / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    assert weights.keys() == model.state_dict().keys()
    again = load(tmp_path)
    assert again.W_E.dtype == torch.float32 and torch.allclose(again.W_E, model.W_E, atol=2e-3)


def test_the_tokenizer_travels_with_the_model(tmp_path):
    vocabulary = train_tokenizer(["the cat sat on the mat"], 270)
    model = GPT(GPTConfig(**{**TINY, "d_vocab": vocabulary.size}), vocabulary)
    save(model, tmp_path)
    assert load(tmp_path).to_tokens("the cat").equal(model.to_tokens("the cat"))


def test_nothing_is_overwritten_without_being_asked(tmp_path):
    save(tiny(), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="already holds a model"):
        save(tiny(seed=1), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    save(tiny(seed=1), tmp_path, overwrite=True)
    assert (tmp_path / "model.safetensors").read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_the_token_that_begins_a_prompt_and_the_trained_length_travel_with_the_model(tmp_path):
    model = tiny()
    save(model, tmp_path)
    assert (tmp_path / "config.json").read_text() == model.cfg.to_json()
    model.bos, model.trained_ctx = 5, 9
    save(model, tmp_path, overwrite=True)
    again = load(tmp_path)
    assert (again.bos, again.trained_ctx, again.cfg) == (5, 9, model.cfg)
    assert saved_config(tmp_path) == model.cfg
    for field, value in (("bos", 99), ("trained_ctx", 0), ("bos", "x")):
        fields = {**json.loads(model.cfg.to_json()), field: value}
        (tmp_path / "config.json").write_text(json.dumps(fields))
        with pytest.raises(ValueError, match=r"config\.json: "):
            load(tmp_path)


def test_save_writes_nothing_that_load_would_refuse_and_keeps_the_good_model(tmp_path):
    good, loud = tiny(dtype=torch.float32), tiny(dtype=torch.float32)
    save(good, tmp_path)
    with torch.no_grad():
        loud.W_E[0, 0] = 1e6
    words = train_tokenizer(["the cat sat on the mat"], 265)
    loose = tiny()
    loose.tokenizer = words
    for model, dtype, message in [(loud, torch.float16, "W_E .* holds a number that is not finite"),
                                  (good, torch.int32, "expected plain floating-point numbers"),
                                  (loose, torch.float32, "265 tokens, .* d_vocab=29")]:  # fmt: skip
        with pytest.raises(ValueError, match=f"nothing was saved .*{message}"):
            save(model, tmp_path, overwrite=True, dtype=dtype)
        assert load(tmp_path).W_E.equal(good.W_E)
    with pytest.raises(ValueError, match=r"265 tokens, .* d_vocab=29"):
        GPT(GPTConfig(**TINY), words)


def test_a_bos_and_an_eos_of_its_own_travel_with_a_tokenizer(tmp_path):
    words = Vocabulary(llama_like(), "<s>", "</s>")
    save(GPT(GPTConfig(**{**TINY, "d_vocab": 4}), words), tmp_path)
    again = load(tmp_path)
    assert (again.bos, again.tokenizer.eos) == (2, 3) and again.to_tokens("b")[0].tolist() == [2, 1]
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": {"content": "</s>"}}')
    assert load(tmp_path).bos == load(tmp_path).tokenizer.eos == 3  # as transformers also writes it
    save(tiny(), tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_tokenizer_goes_with_its_model_and_is_a_regular_file(tmp_path):
    words = train_tokenizer(["the cat sat on the mat"], 265)
    save(GPT(GPTConfig(**{**TINY, "d_vocab": 265}), words), tmp_path)
    (tmp_path / "tokenizer.json").rename(tmp_path / "kept.json")
    save(tiny(), tmp_path, overwrite=True)
    assert load(tmp_path).tokenizer is None
    save(GPT(GPTConfig(**{**TINY, "d_vocab": 265}), words), tmp_path, overwrite=True)
    save(tiny(), tmp_path, overwrite=True)
    assert not (tmp_path / "tokenizer.json").exists()
    (tmp_path / "kept.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=r"265 tokens, .* d_vocab=29"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="no regular file"):
        load(tmp_path)


def test_a_folder_of_a_user_never_reads_with_a_tokenizer_that_ships(tmp_path):
    size = load("attn-only-1l").cfg.d_vocab
    save(GPT(GPTConfig(**{**TINY, "d_vocab": size})), tmp_path)
    assert load(tmp_path).tokenizer is None and load("attn-only-1l").tokenizer is not None
