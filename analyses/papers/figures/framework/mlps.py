"""Framework paper, "MLP layers" of the appendix: what a neuron reads (F27)."""

import html
from dataclasses import replace

import torch

from analyses import plots
from analyses.labelled import words_of
from analyses.papers.figures.drawing import FRAMEWORK, Drawing, Verdict, figure_of
from analyses.papers.figures.framework.prompt import prompt
from analyses.terms import expansion
from circuits import algebra
from circuits.model import GPT

SMALL = 1e-4
EXAMPLES, TOP = 8, 6
"Neurons in the table, and tokens of each."
READS = r"$a_{pre} = Id \otimes W_I W_E + \sum_h A^h \otimes (W_I W_{OV}^h W_E)$"


def mlps(model: GPT) -> Drawing:
    """F27, "MLP layers": what drives the neurons of the first MLP before their activation: each
    token directly, and the tokens that each head attends to. The paths sum to the neurons' input.

    A model without MLPs has none to show: the identity is then checked on an untrained model of
    its shape with MLPs, which says nothing of any trained neuron.
    """
    if model.cfg.n_layers < 1:
        raise ValueError("an MLP is part of a layer, and this model has none")
    own = model.cfg.d_mlp is not None
    read = model if own else _with_mlps(model)
    tokens = prompt(read)
    found = expansion.neuron_terms(read, tokens)
    title = READS if own else f"{READS}   (untrained weights)"
    figure = figure_of(plots.terms(found, words_of(read, tokens), title=title))
    error, largest = found.attrs["error"], found.attrs["largest"]
    whose = "this model's" if own else "an untrained model's"
    says = (
        f"paper: neurons are driven by tokens directly and through each head; here the {len(found)}"
        f" paths to {read.cfg.d_mlp} of {whose} neurons sum to their input up to {error:.0e} of "
        f"values up to {largest:.1f}"
    )
    caption = (
        "Root mean square over the neurons of the first MLP of what each path brings, token by "
        "token; norm linear, its 1/sigma that of the run. Equation in the paper's column vectors."
    )
    if not own:
        caption += (
            " THIS MODEL HAS NO MLP: the numbers are those of an untrained model of its shape with "
            f"{read.cfg.d_mlp} neurons a layer. They check the equation, and are no finding."
        )
    return Drawing(
        figure, "What drives a neuron", f"Framework, MLP layers (F27), {FRAMEWORK}", caption,
        Verdict(error < SMALL * max(1.0, largest), says), _table(model) if own else "",
    )  # fmt: skip


def _with_mlps(model: GPT) -> GPT:
    cfg = replace(model.cfg, d_mlp=4 * model.cfg.d_model, act_fn="gelu")
    return GPT(cfg, model.tokenizer).to(model.W_E.dtype).eval()


def _table(model: GPT) -> str:
    """The tokens that drive the first MLP's largest neurons most, read from the embedding."""
    if model.tokenizer is None:
        return ""
    with torch.no_grad():
        drive = algebra.neuron_reads(model)[0].AB  # d_vocab d_mlp
    drive = drive - drive.mean(0)
    rows = []
    for neuron in drive.norm(dim=0).topk(min(EXAMPLES, drive.shape[1])).indices.tolist():
        best = drive[:, neuron].topk(min(TOP, drive.shape[0])).indices
        named = ", ".join(plots.show_token(word) for word in model.to_str_tokens(best))
        rows.append(f"<tr><td>neuron {neuron}</td><td>{html.escape(named)}</td></tr>")
    return f"<table><tr><th>MLP0</th><th>driven most by</th></tr>{''.join(rows)}</table>"
