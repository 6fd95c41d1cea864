"""What ships is what its cards say. Texts here are ours."""

import numpy as np
import pytest
import torch

from analyses import attention, dynamics, induction, passages
from circuits import load
from circuits.io import folder_of, models, tokenizer_file

PASSAGE = (
    "The miller's daughter put the copper kettle on the stove and counted the spoons. "
    "Nobody had told Oswin Hartley that the ferry left at noon. "
)


TEXT = ("attn-only-0l", "attn-only-1l", "attn-only-1l-smeared", "attn-only-2l",
        "attn-only-2l-seed1")  # fmt: skip
"Trained on the same text, with one tokenizer."
INDUCTION = ("attn-only-1l-smeared", "attn-only-2l", "attn-only-2l-seed1")


def test_every_model_ships_with_a_card_its_recipe_and_its_record():
    assert set(TEXT) | {"repeats-2l"} <= set(models())
    for name in models():
        folder = folder_of(name)
        assert {"README.md", "recipe.json", "log.jsonl"} <= {path.name for path in folder.iterdir()}
        assert (folder / "model.safetensors").stat().st_size < 5 * 2**20
        card = (folder / "README.md").read_text()
        assert "command" in card and "Known limits" in card
        held_out = dynamics.last_record(name)["held_out"]
        assert name == "repeats-2l" or f"{held_out:.2f} nats per token" in card


def test_models_of_text_read_it_in_the_same_tokens():
    assert {tokenizer_file(folder_of(name)) for name in TEXT} == {
        folder_of("attn-only-2l").parent / "tokenizer-2048.json"
    }
    assert tokenizer_file(folder_of("repeats-2l")) is None
    cards = [(folder_of(name) / "README.md").read_text() for name in TEXT]
    assert all("SOURCES.md" in card for card in cards)
    assert (folder_of("attn-only-2l").parent / "SOURCES.md").is_file()


@pytest.mark.parametrize("name", TEXT)
def test_a_history_ends_with_the_model_that_ships(name):
    model, seen = load(name), dynamics.history(name)
    assert 120 <= seen.sizes["step"] <= 151 and seen.step.values[-1] == 4500
    assert (folder_of(name) / dynamics.FILE).stat().st_size < 3 * 2**20
    last, record = seen.isel(step=-1), dynamics.last_record(name)
    assert np.isclose(last.held_out, record["held_out"], atol=0.02)
    for score, known in [
        (attention.prefix_matching(model), last.prefix_matching),
        (attention.previous_token(model), last.previous_token),
        (induction.copying(model), last.copying),
    ]:
        assert np.allclose(score, known, atol=0.01), score.name  # half precision


def test_more_layers_predict_better_on_text_held_out_and_on_ours():
    ordered = ("attn-only-0l", "attn-only-1l", "attn-only-2l")
    held_out = [dynamics.last_record(name)["held_out"] for name in ordered]
    ours = []
    for name in ordered:
        model = load(name)
        with torch.no_grad():
            ours.append(float(model(passages.tokens(model), return_type="loss")))
    for losses in (held_out, ours):
        assert losses[0] - 0.1 > losses[1] > losses[2] + 0.1


def test_one_layer_forms_no_induction_head_at_any_step_and_smeared_keys_or_two_layers_do():
    control = dynamics.history("attn-only-1l")
    assert control.prefix_matching.max() < 0.3 and dynamics.formed(control).isnull().all()
    for name in INDUCTION:
        seen = dynamics.history(name)
        assert seen.prefix_matching[0].max() < 0.1 and seen.prefix_matching[-1].max() > 0.5
        assert 0 < float(dynamics.formed(seen).min()) < 4500


def test_without_a_previous_token_head_induction_is_lost_but_not_with_patterns_held():
    """Of the heads of layer 0, the one that attends to the previous token is worth more by full
    ablation than by pattern-preserving; a head of layer 1 is worth the same by both."""
    for name in ("attn-only-2l", "attn-only-2l-seed1"):
        last = dynamics.history(name).isel(step=-1)
        head = int(last.previous_token[0].values.argmax())
        full, preserving = last.ablated_loss[0, head].values
        assert full > preserving + 0.02, name
        assert np.allclose(*last.ablated_loss[1].T.values)


@pytest.mark.parametrize("name", [*INDUCTION, "repeats-2l"])
def test_a_model_with_induction_heads_predicts_the_repeat(name):
    model = load(name)
    score = attention.prefix_matching(model)
    assert float(score[-1].max()) > 0.5
    if model.cfg.n_layers == 2:
        assert float(score[0].max()) < 0.3
    assert induction.repeat_gain(model) > 1.0


@pytest.mark.parametrize("name", ["attn-only-0l", "attn-only-1l"])
def test_a_model_without_them_does_not(name):
    assert induction.repeat_gain(load(name)) < 0.5


def test_attn_only_2l_reads_english_and_recalls_a_passage_of_ours():
    model = load("attn-only-2l")
    tokens = model.to_tokens(PASSAGE * 2)
    losses = model(tokens, return_type="loss", loss_per_token=True)[0]
    half = (len(losses)) // 2
    assert losses[half + 2 :].mean() < losses[:half].mean() - 1.5
    likely = model(model.to_tokens("It is one of the most"))[0, -1].softmax(-1).topk(10)
    words = [model.to_string(int(token)) for token in likely.indices]
    assert all(word.startswith(" ") for word in words[:3]), words


def test_silencing_the_induction_heads_costs_the_repeat_more_than_other_heads():
    model = load("attn-only-2l")
    tokens = model.to_tokens(PASSAGE * 2)
    heads = attention.prefix_matching(model)[1].values.argsort()

    def loss_without(head: int) -> float:
        def silence(z: torch.Tensor, hook: object) -> None:
            z[:, :, head] = 0

        hooked = [("blocks.1.attn.hook_z", silence)]
        with torch.no_grad():
            loss = model.run_with_hooks(tokens, "loss", loss_per_token=True, fwd_hooks=hooked)
        return float(loss[0, tokens.shape[1] // 2 + 2 :].mean())

    assert loss_without(int(heads[-1])) > loss_without(int(heads[0])) + 0.3


def test_a_name_that_nearly_ships_is_suggested():
    with pytest.raises(KeyError, match="did you mean 'attn-only-2l'"):
        load("attn-only-2L")
