"""Every figure of one model is drawn; its verdict is true on a known circuit and false on an
untrained model, unless it is a law."""

import pytest
import torch

from analyses import figures
from analyses.papers.figures import circuits
from analyses.papers.figures.framework import bandwidth, importance, positions
from analyses.papers.figures.induction import idealised, story
from circuits import GPT, GPTConfig, ground_truth, load

OF_MODELS = [name for name, record in figures.EVERY.items() if record.kind == "model"]
CIRCUITS = ["circuits", "positions", "qk-expansion", "composition", "repeats", "corner"]
SEQUENCES = ["prefix-matching", "loss-by-position", "idealised"]
SHOWN = [f"framework/{name}" for name in CIRCUITS] + [f"induction/{name}" for name in SEQUENCES]


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch):
    monkeypatch.setattr(circuits, "SEEDS", 2)
    monkeypatch.setattr(circuits, "MANY", 2)
    monkeypatch.setattr(idealised, "EVERY", 16)
    for module in (bandwidth, importance, positions, story):
        monkeypatch.setattr(module, "WINDOWS", 12)


def looks_whole(drawing):
    assert drawing.caption and drawing.title and "https://" in drawing.source
    assert drawing.verdict.paper and drawing.verdict.here
    if drawing.figure is None:  # the words say why
        assert drawing.verdict.state == "not testable here"
    else:
        assert len(drawing.figure.axes) > 0


@pytest.mark.parametrize("name", OF_MODELS)
def test_every_figure_is_drawn_and_only_laws_hold_on_an_untrained_model(name, untrained):
    drawing = figures.draw(name, untrained)
    looks_whole(drawing)
    law = figures.EVERY[name].identity and name != "framework/mlps"  # the model has none
    assert drawing.verdict.holds == law, drawing.verdict.here


@pytest.mark.parametrize("name", OF_MODELS)
def test_every_figure_is_drawn_from_the_model_that_ships(name):
    looks_whole(figures.draw(name, load("attn-only-2l")))


@pytest.mark.parametrize("name", SHOWN)
def test_the_verdict_holds_on_a_circuit_built_to_show_it(name):
    verdict = figures.judge(name, ground_truth.Induction(d_vocab=70, n_ctx=70).model.float())
    assert verdict.holds, verdict.here


def test_the_paths_to_the_neurons_of_a_model_with_mlps_sum_to_their_input(untrained):
    shape = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_head": 8, "n_ctx": 64, "d_mlp": 24}
    torch.manual_seed(0)
    cfg = GPTConfig(**shape, act_fn="gelu", d_vocab=untrained.cfg.d_vocab)
    drawing = figures.draw("framework/mlps", GPT(cfg, untrained.tokenizer).eval())
    assert drawing.verdict.holds and "24 of this model's neurons" in drawing.verdict.here
    assert "neuron" in drawing.html and "<table>" in drawing.html
