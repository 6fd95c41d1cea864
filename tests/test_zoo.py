"""What ships is what its cards say. Texts here are ours."""

import pytest
import torch

from analyses import attention, figures, induction
from circuits import load
from circuits.pretrained import folder_of, models

PASSAGE = (
    "The miller's daughter put the copper kettle on the stove and counted the spoons. "
    "Nobody had told Oswin Hartley that the ferry left at noon. "
)


def test_the_models_of_this_issue_ship_with_cards_and_recipes():
    assert {"attn-only-2l", "repeats-2l"} <= set(models())
    for name in models():
        folder = folder_of(name)
        assert {"README.md", "recipe.json", "log.jsonl"} <= {path.name for path in folder.iterdir()}
        assert (folder / "model.safetensors").stat().st_size < 5 * 2**20
        assert "command" in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["attn-only-2l", "repeats-2l"])
def test_a_shipped_model_has_an_induction_head_in_layer_1_and_predicts_the_repeat(name):
    model = load(name)
    score = attention.prefix_matching(model)
    assert float(score.max()) > 0.5 and float(score[0].max()) < 0.3
    assert induction.repeat_gain(model) > 1.0


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


@pytest.mark.parametrize("name", figures.FIGURES)
def test_every_figure_is_drawn_from_the_model_that_ships(name):
    assert figures.draw(name, load("attn-only-2l")).verdict.says


def test_a_name_that_nearly_ships_is_suggested():
    with pytest.raises(KeyError, match="did you mean 'attn-only-2l'"):
        load("attn-only-2L")
