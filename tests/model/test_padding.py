"""Padded batches: each row has what it has alone, whichever side its pads are on."""

import pytest
import torch
import torch.nn.functional as F

from circuits import GPT, load, paths, residual, scores
from circuits.io import bridge
from circuits.model import KeyValueCache
from tests.conftest import OTHER_TASKS, VARIANTS, tiny, tiny_tokens, variant_name

LENGTHS = (4, 6, 1)
ROWS = [tiny_tokens(batch=1, pos=n, seed=n) for n in LENGTHS]
UNSMEARED = [fields for fields in [*VARIANTS, *OTHER_TASKS] if "smeared_keys" not in fields]
SIDES = pytest.mark.parametrize("side", ["left", "right"])


def padded(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """ROWS as a batch, with token 3 at the pads, and their mask."""

    def filled(row: torch.Tensor, value: int) -> torch.Tensor:
        missing = max(LENGTHS) - row.shape[1]
        return F.pad(row, (missing, 0) if side == "left" else (0, missing), value=value)

    tokens = torch.cat([filled(row, 3) for row in ROWS])
    return tokens, torch.cat([filled(torch.ones_like(row), 0) for row in ROWS])


def own(values: torch.Tensor, row: int, side: str, dims: tuple[int, ...] = (1,)) -> torch.Tensor:
    """The part of a padded batch's values that belongs to the tokens of one row."""
    n, there = LENGTHS[row], values[row : row + 1]
    for dim in dims:
        there = there.narrow(dim, values.shape[dim] - n if side == "left" else 0, n)
    return there


@SIDES
@pytest.mark.parametrize("fields", UNSMEARED, ids=variant_name)
def test_each_row_has_the_logits_and_activations_that_it_has_alone(fields, side):
    model, (tokens, mask) = tiny(**fields), padded(side)
    with torch.no_grad():
        logits = model(tokens, attention_mask=mask)
        heard, cache = model.run_with_cache(tokens, attention_mask=mask, names_filter="*")
        for row, alone in enumerate(ROWS):
            expected, seen = model.run_with_cache(alone, names_filter="*")
            for found in (logits, heard):
                assert torch.allclose(own(found, row, side), expected, rtol=0, atol=1e-10)
            for name, value in seen.items():
                square = name.endswith(("scores", "pattern"))
                found = own(cache[name], row, side, (2, 3) if square else (1,))
                assert torch.allclose(found, value, rtol=0, atol=1e-10), name


def test_pads_change_what_they_are_not_hidden_from():
    """What the mask is for: pads on the left, and bidirectional attention."""
    for fields, side in (({}, "left"), ({"attention_dir": "bidirectional"}, "right")):
        tokens, _ = padded(side)
        logits = tiny(**fields)(tokens)
        assert not torch.allclose(own(logits, 0, side), tiny(**fields)(ROWS[0]), atol=0.1)


@SIDES
def test_no_token_looks_at_a_pad_and_a_pad_at_nothing_that_is_hidden(side):
    tokens, mask = padded(side)
    _, cache = tiny().run_with_cache(tokens, attention_mask=mask)
    pattern, pads = cache["pattern", 1], mask == 0
    to_pads = pattern.masked_fill(~pads[:, None, None], 0)
    at_itself = to_pads.diagonal(dim1=-2, dim2=-1)
    assert torch.equal(to_pads.sum(-1), at_itself) and pattern.sum(-1).allclose(pattern.new_ones(1))
    assert at_itself.masked_fill(pads[:, None], 0).eq(0).all()


@SIDES
@pytest.mark.parametrize("positions", ["standard", "shortformer"])
def test_a_padded_run_comes_apart_like_any_other(positions, side):
    model, (tokens, mask) = tiny(positional_embedding_type=positions), padded(side)
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens, attention_mask=mask)
        for parts in (residual.components(model, cache), paths.groups(model, cache, "start"),
                      scores.groups(model, cache, "L1H2")):  # fmt: skip
            assert parts.remainder.abs().max() < 1e-10
        assert torch.allclose(paths.groups(model, cache).whole, logits, rtol=0, atol=1e-10)
        one = scores.by_token(model, cache, "L1H2", dest=5, src=4)
    whole = cache["attn_scores", 1][:, 2, 5, 4]
    real = mask[:, 4:].all(1)
    assert torch.allclose(one.sum((1, 2))[real], whole[real], rtol=0, atol=1e-10)


@SIDES
def test_the_loss_is_of_tokens_after_tokens_alone(side):
    model, (tokens, mask) = tiny(), padded(side)
    each = model(tokens, return_type="loss", loss_per_token=True, attention_mask=mask)
    alone = [model(row, return_type="loss", loss_per_token=True) for row in ROWS[:2]]
    total = sum(loss.sum() for loss in alone)
    assert torch.allclose(each.sum(), total) and (each != 0).sum() == 3 + 5
    mean = model(tokens, return_type="loss", attention_mask=mask)
    assert torch.allclose(mean, total / 8)
    mean.backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_padded_batch_is_read_on_in_pieces(cut):
    """Whichever piece the pads are in; an absent mask says that all of a piece are tokens."""
    for side in ("left", "right"):
        model, (tokens, mask) = tiny(), padded(side)
        whole = model(tokens, attention_mask=mask)
        past = KeyValueCache.init_cache(model.cfg, 3)
        first = model(tokens[:, :cut], attention_mask=mask[:, :cut], past_kv_cache=past)
        second = model(tokens[:, cut:], attention_mask=mask[:, cut:], past_kv_cache=past)
        assert torch.allclose(torch.cat([first, second], 1), whole, rtol=0, atol=1e-10)
        after = model(tokens[:, :1], past_kv_cache=past)
        for row, alone in enumerate(ROWS):
            again = model(torch.cat([alone, tokens[row : row + 1, :1]], 1))
            assert torch.allclose(after[row, -1], again[0, -1], rtol=0, atol=1e-10)


def test_texts_of_several_lengths_go_on_as_each_does_alone():
    model = load("attn-only-2l", dtype=torch.float64)
    texts = ["The captain of the ship said that the captain", "import", "A list of"]
    for cached in (True, False):
        how = {"temperature": 0.0, "use_past_kv_cache": cached}
        together = model.generate(texts, 6, **how)
        assert together == [model.generate(text, 6, **how) for text in texts]
    tokens, mask = model.to_padded_tokens(texts)
    new = model.generate(tokens, 6, attention_mask=mask, temperature=0.0)[:, -6:]
    tokens, mask = model.to_padded_tokens(texts, padding_side="left")
    assert new.equal(model.generate(tokens, 6, attention_mask=mask, temperature=0.0)[:, -6:])
    assert tokens[mask.logical_not()].eq(model.tokenizer.bos).all()
    said = model.generate(tokens, 6, attention_mask=mask, temperature=0.0, return_type="str")
    assert [one.replace("<|endoftext|>", "") for one in said] == together
    for row, text in enumerate(texts):
        assert tokens[row, mask[row]].equal(model.to_tokens(text)[0])


@SIDES
def test_it_is_what_hugging_face_makes_of_an_attention_mask(side):
    import transformers

    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 3, "n_embd": 15, "vocab_size": 29, "n_positions": 16}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape)).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    tokens, mask = padded(side)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=mask, position_ids=places).logits
        logits = bridge.from_hugging_face(theirs)(tokens, attention_mask=mask)
    real = mask.bool()
    assert torch.allclose(logits[real], expected[real], rtol=0, atol=1e-10)


def test_a_hook_on_scores_can_hide_pads_as_ported_code_does():
    model, (tokens, mask) = tiny(attention_dir="bidirectional"), padded("right")

    def hide(scores, hook):
        scores[(mask == 0)[:, None, None].expand_as(scores)] = -torch.inf

    with torch.no_grad():
        hidden = model.run_with_hooks(tokens, fwd_hooks=[("blocks.*.hook_attn_scores", hide)])
        masked = model(tokens, attention_mask=mask)
    real = mask.bool()
    assert torch.allclose(hidden[real], masked[real], rtol=0, atol=1e-10)


def test_a_mask_that_hides_nothing_changes_nothing():
    model, tokens = tiny(smeared_keys=True), tiny_tokens()
    for mask in (torch.ones(3, 7), torch.ones(3, 7, dtype=torch.bool)):
        assert model(tokens, attention_mask=mask).equal(model(tokens))
    assert model(tokens[0], attention_mask=torch.ones(7)).equal(model(tokens[:1]))


def test_smeared_keys_take_pads_on_the_right():
    model = tiny(smeared_keys=True)
    tokens, mask = padded("right")
    logits = model(tokens, attention_mask=mask)
    for row, alone in enumerate(ROWS):
        assert torch.allclose(own(logits, row, "right"), model(alone), rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="tokens after pads: pad on the right"):
        model(*padded("left")[:1], attention_mask=padded("left")[1])


@pytest.mark.parametrize(("mask", "message"), [
    (torch.full((3, 7), 2), "1 at tokens and 0 at pads"),
    (torch.full((3, 7), torch.nan), "1 at tokens and 0 at pads"),
    (torch.eye(7)[:3] * torch.tensor([[1], [0], [1]]), "no token in row 1")])  # fmt: skip
def test_a_mask_that_does_not_fit_is_refused_in_words(mask, message):
    for call in (tiny(), tiny().generate):
        with pytest.raises(ValueError, match=message):
            call(tiny_tokens(), attention_mask=mask)


def test_texts_that_differ_in_length_are_told_where_padding_is():
    model: GPT = load("attn-only-1l")
    with pytest.raises(ValueError, match="to_padded_tokens pads them"):
        model(["one", "one and another"])
    with pytest.raises(ValueError, match="at least one token, got lengths"):
        model.to_padded_tokens(["a", ""], prepend_bos=False)
    with pytest.raises(ValueError, match="texts of one length, or one text at a time"):
        load("attn-only-1l-smeared").generate(["one", "one and another"], 2)
    with pytest.raises(ValueError, match="no token that follows a token"):
        tiny()(tiny_tokens(), "loss", attention_mask=torch.eye(7)[:3])
    with pytest.raises(ValueError, match="attention_mask is for tokens"):
        model.generate("a", 1, attention_mask=torch.ones(1, 2))
