"""A plan: the config, the recipe and the text that options mean."""

from pathlib import Path

import pytest
import torch

from analyses.cli.options import Options
from analyses.cli.plans import POSITIONS, plan, usual_device
from circuits import GPT, GPTConfig
from circuits.io import folder_of, load, tokenizer_file
from circuits.training import Recipe


def planned(**options):
    return plan(Options(out=Path("out"), **options), set(options))


def test_width_is_that_of_the_heads_together_unless_it_is_given():
    assert planned(repeated_tokens=True, heads=3, d_head=5).shape["d_model"] == 15
    cfg = GPTConfig(**planned(repeated_tokens=True, heads=3, d_head=5, width=7).shape)
    assert cfg.d_model == 7 and GPT(cfg).W_Q.shape == (2, 3, 7, 5)


def test_embed_init_is_the_deviation_of_the_embedding_alone():
    plain, wide = (GPT(GPTConfig(**planned(repeated_tokens=True, embed_init=init).shape))
                   for init in (0.0, 0.5))  # fmt: skip
    assert plain.cfg.embed_init_range is None and wide.cfg.embed_init_range == 0.5
    assert torch.isclose(wide.W_E.std(), torch.tensor(0.5), rtol=0.05)
    assert wide.W_U.equal(plain.W_U) and wide.W_Q.equal(plain.W_Q)


def test_every_is_the_one_number_of_records_and_snapshots():
    assert planned(repeated_tokens=True, every=7).recipe.evaluate_every == 7


def test_mlps_and_positions_of_text_are_in_the_shape(tmp_path):
    text = planned(data=[tmp_path], mlp=9)
    assert text.shape["d_mlp"] == 9 and text.shape["act_fn"] == "gelu"
    assert POSITIONS.items() <= text.shape.items() and text.corpus is not None
    assert "sinusoid_base" not in planned(repeated_tokens=True).shape


def test_a_recorded_run_gives_its_config_its_recipe_and_its_tokenizer(tmp_path):
    like, folder = planned(recipe="attn-only-1l", data=[tmp_path]), folder_of("attn-only-1l")
    assert GPTConfig(**like.shape) == load("attn-only-1l").cfg
    assert like.recipe == Recipe.from_json((folder / "recipe.json").read_text())
    assert like.tokenizer == tokenizer_file(folder) and like.like == folder
    assert planned(recipe="attn-only-1l", data=[tmp_path], every=9).recipe.evaluate_every == 9
    with pytest.raises(ValueError, match=r"leave out \['lr'\]"):
        planned(recipe="attn-only-1l", data=[tmp_path], lr=0.1)
    with pytest.raises(ValueError, match="--tokenizer repeats-2l: that model has no tokenizer"):
        planned(tokenizer="repeats-2l", data=[tmp_path])


def test_a_device_that_is_not_there_is_named():
    assert usual_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="no device 'foo' can be used here, cpu can"):
        usual_device("foo")
