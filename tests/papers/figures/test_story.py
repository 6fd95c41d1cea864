"""The story without some heads: each number is that of a run with the heads silent, its test is
true where the heads do induction and cannot be asked where there are none."""

import numpy as np

from analyses import figures, losses
from analyses.papers.figures.framework.samples import induction_heads
from analyses.papers.figures.induction import story
from circuits import load
from circuits.ground_truth.controls import at_initialisation
from circuits.model import every_head

NAME = "induction/story-without-heads"


def rise_when_silent(model, tokens, layer, heads):
    def silence(z, hook):
        z = z.clone()
        z[:, :, heads] = 0
        return z

    with model.hooks([(f"blocks.{layer}.attn.hook_z", silence)]):
        without = losses.of_tokens(model, tokens)
    return (without - losses.of_tokens(model, tokens))[0]


def test_the_numbers_are_those_of_a_run_with_the_heads_silent():
    model = load("attn-only-2l")
    tokens = model.to_tokens("Mr and Mrs Hartley lived here. Mrs Hartley left.")
    found = story.titled(model, tokens, {"together": ["L1H0", "L1H2"], "previous": ["L0H1"]})
    (one, late), (two, full), (three, held) = found.items()
    assert "all induction heads" in one and "the same" in one
    assert two.endswith("full ablation") and three.endswith("pattern-preserving ablation")
    for layer, heads, rise in ((1, [0, 2], late), (0, [1], full)):
        assert np.isnan(rise[0])
        expected = rise_when_silent(model, tokens, layer, heads)
        np.testing.assert_allclose(rise[1:], expected.detach(), atol=1e-4)
    assert np.nanmax(np.abs(full - held)) > 0.1


def test_controls_are_as_many_heads_of_the_same_layers_and_none_of_them():
    model = load("attn-only-2l")
    heads = induction_heads(model)
    drawn = story.others(model, heads)
    assert drawn and len(drawn) <= story.DRAWS
    free = model.cfg.n_heads - len(heads)
    for names in drawn.values():
        assert not set(names) & set(map(str, heads))
        assert len(set(names)) == len(names) == min(len(heads), free)
        assert {name[:2] for name in names} == {f"L{head.layer}" for head in heads}


def test_the_claim_holds_with_induction_heads_and_its_page_says_each_number(monkeypatch):
    monkeypatch.setattr(story, "WINDOWS", 12)
    model = load("attn-only-2l")
    drawing = figures.draw(NAME, model)
    assert drawing.verdict.holds and drawing.figure, drawing.verdict.here
    page = drawing.pages[story.PAGE]
    assert story.PAGE in drawing.html and "<script" not in page
    alone = len(induction_heads(model))
    said = 1 + (alone if alone > 1 else 0) + 2 + 1  # together, alone, of two kinds, others
    length = story._story(model, model.cfg.n_ctx).shape[1]
    assert page.count('nats"') == said * (length - 1)


def test_without_induction_heads_there_is_nothing_to_ask_or_to_draw():
    drawing = figures.draw(NAME, at_initialisation(load("attn-only-2l")))
    assert drawing.verdict.state == "not testable here" and drawing.figure is None
    assert "no induction head" in drawing.verdict.here and not drawing.pages


def test_the_claim_fails_if_other_heads_are_called_induction_heads(monkeypatch):
    monkeypatch.setattr(story, "WINDOWS", 12)
    model = load("attn-only-2l")
    silent = [head for head in every_head(model.cfg)
              if head.layer == 1 and head not in induction_heads(model)]  # fmt: skip
    monkeypatch.setattr(story, "induction_heads", lambda model: silent)
    assert figures.judge(NAME, model).state == "does not hold"
