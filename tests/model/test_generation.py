"""New text: the same with a cache and without, drawn from what settings leave, ended by rows."""

import pytest
import torch

from circuits import GPT, load
from circuits.model import likeliest
from tests.conftest import tiny, tiny_tokens

TOKENS = tiny_tokens(batch=4, pos=5)


def test_with_a_cache_it_says_what_it_says_without(variant):
    tokens = TOKENS[:, :2]
    said = variant.generate(tokens, 5, temperature=3.0, seed=3)
    assert said.shape == (4, 7) and said[:, :2].equal(tokens)
    how = {"temperature": 3.0, "use_past_kv_cache": False}
    assert variant.generate(tokens, 5, seed=3, **how).equal(said)
    assert not variant.generate(tokens, 5, seed=4, **how).equal(said)


def test_the_likeliest_token_is_said_by_all_that_leave_no_other():
    model = tiny()
    greedy = model.generate(TOKENS, 6, do_sample=False)
    with torch.no_grad():
        assert greedy[:, 5:].equal(model(greedy)[:, 4:-1].argmax(-1))
    for how in ({"top_k": 1}, {"temperature": 0.0}, {"top_p": 1e-9}):
        assert model.generate(TOKENS, 6, **how).equal(greedy)


def test_at_any_temperature_above_0_however_small_there_is_a_likeliest_token():
    model = tiny()
    said = model.generate(TOKENS, 3, temperature=1e-320)
    assert said.equal(model.generate(TOKENS, 3, temperature=0.0))


def test_top_p_keeps_the_fewest_that_reach_it_and_top_k_so_many():
    p = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)

    def kept(**how) -> list[list[int]]:
        left = likeliest(p.log(), **how).softmax(-1)
        return [row.nonzero().flatten().tolist() for row in left]

    assert kept(top_p=0.69)[0] == [1, 3] and kept(top_p=0.71)[0] == [1, 2, 3]
    assert kept(top_p=0.39)[0] == [1] and kept(top_p=1.0) == [[0, 1, 2, 3]] * 2
    assert kept(top_k=2) == [[1, 3], [0, 1]] and kept(top_k=9)[0] == [0, 1, 2, 3]
    assert kept(top_k=2, top_p=0.5)[0] == [1]  # 0.4 of 0.7
    random = torch.randn(50, 20, dtype=torch.float64)
    left, all_p = likeliest(random, top_p=0.6) > -torch.inf, random.softmax(-1)
    mass = (all_p * left).sum(-1)
    least = torch.where(left, all_p, torch.inf).amin(-1)
    assert (mass >= 0.6).all() and (mass - least < 0.6).all()
    assert (least >= torch.where(left, 0, all_p).amax(-1)).all()


def test_tokens_are_drawn_as_often_as_they_are_likely():
    model, rows = tiny(dtype=torch.float32), TOKENS[:1].repeat(4000, 1)
    said = model.generate(rows, 1, temperature=2.0, seed=1)[:, -1].bincount(minlength=29) / 4000
    with torch.no_grad():
        p = (model(TOKENS[:1])[0, -1] / 2).softmax(-1)
    assert (said - p).abs().max() < 4 * 0.5 / 4000**0.5 and p.max() > 0.1


def test_each_row_ends_by_itself_and_all_when_all_have():
    model = tiny()
    free = model.generate(TOKENS, 11, temperature=3.0)
    ends = [int(free[0, 6]), int(free[2, 9])]
    said = model.generate(TOKENS, 11, temperature=3.0, eos_token_id=ends)
    for row, own in zip(said, free, strict=True):
        at = next((i for i in range(5, 16) if int(own[i]) in ends), 15)
        assert row[: at + 1].equal(own[: at + 1]) and row[at:].eq(own[at]).all()
    assert model.generate(TOKENS, 9, eos_token_id=range(29)).shape == (4, 6)
    assert model.generate(TOKENS, 9, eos_token_id=range(29), stop_at_eos=False).shape == (4, 14)


def test_text_comes_back_as_text_and_is_the_text_of_the_tokens():
    model, text = load("attn-only-1l"), "The captain of the ship"
    said = model.generate(text, 8, seed=1)
    tokens = model.generate(text, 8, seed=1, return_type="tokens")
    assert said.startswith(text) and said == model.to_string(tokens[0, 1:])
    assert model.generate(model.to_tokens(text), 8, seed=1).equal(tokens)
    both = model.generate([text, text], 3, do_sample=False)
    assert both == [model.generate(text, 3, do_sample=False)] * 2
    model.unembed.b_U = torch.nn.Parameter(100.0 * torch.eye(2048)[model.tokenizer.bos])
    assert model.generate(text, 4) == text  # the first that it says is the end


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"temperature": -1.0}, "temperature must be 0 or more, got -1.0"),
        ({"top_k": 0}, "top_k must be 1 or more, got 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, got 1.5"),
        ({"max_new_tokens": 12}, "5 tokens and 12 new ones are more than the context of n_ctx=16"),
        ({"max_new_tokens": -1}, "max_new_tokens must be 0 or more, got -1"),
        ({"eos_token_id": 29}, "must be tokens of the vocabulary, 0 to 28"),
        ({"return_type": "str"}, "no tokenizer"),
    ],
)
def test_what_means_nothing_is_refused(how, words):
    model: GPT = tiny()
    with pytest.raises(ValueError, match=words):
        model.generate(TOKENS, **how)
