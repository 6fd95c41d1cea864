"""Framework paper, "MLP layers" of the appendix: the input of a neuron (F27)."""

from dataclasses import replace

import torch
from pandas import DataFrame

from analyses import plots
from analyses.labelled import words_of
from analyses.papers.figures.framework.sums import adds_up, prompt
from analyses.papers.figures.record import Finding, figure, picture_of
from analyses.plots import html_tables
from analyses.terms import expansion
from circuits import algebra
from circuits.model import GPT

EXAMPLES, TOP = 8, 6
"The number of neurons in the table, and the number of tokens of each neuron."
READS = r"$a_{pre} = Id \otimes W_I W_E + \sum_h A^h \otimes (W_I W_{OV}^h W_E)$"


@figure(
    "framework/mlps",
    "The tokens that drive a neuron",
    "Framework, MLP layers (F27)",
    "neurons are driven by tokens directly and through each head",
    layers=1,
    fits=lambda cfg: cfg.d_mlp is not None and cfg.n_layers > 0,
    identity=True,
)
def mlps(model: GPT) -> Finding:
    """The parts of the input of the neurons of the first MLP before their activation: each token
    directly, and the tokens that each head attends to. The paths sum to the input.

    A model without MLPs has no neurons. The identity is then checked on an untrained model of its
    shape with MLPs, which says nothing about trained neurons.
    """
    own = model.cfg.d_mlp is not None
    read = model if own else _with_mlps(model)
    tokens = prompt(read)
    found = expansion.neuron_terms(read, tokens)
    error, largest = found.attrs["error"], found.attrs["largest"]
    whose = "this model's" if own else "an untrained model's"
    caption = (
        "Each cell is the root mean square, over the neurons of the first MLP, of the part of a "
        "path in their input at a token. The norm is linear, with the 1/sigma of the run. The "
        "equation is in the paper's column vectors. The test: the paths sum to the input."
    )
    if not own:
        caption += (
            " THIS MODEL HAS NO MLP: the numbers are from an untrained model of its shape with "
            f"{read.cfg.d_mlp} neurons in each layer. They check the equation, and are no finding."
        )
    title = READS if own else f"{READS}   (untrained weights)"
    return Finding(
        adds_up(error, largest) if own else None,
        f"the {len(found)} paths to {read.cfg.d_mlp} of {whose} neurons sum to their input, with "
        f"an error of at most {error:.0e} of values up to {largest:.1f}",
        caption,
        lambda: picture_of(plots.terms(found, words_of(read, tokens), title=title)),
        lambda: _table(model) if own and model.tokenizer is not None else "",
    )


def _with_mlps(model: GPT) -> GPT:
    cfg = replace(model.cfg, d_mlp=4 * model.cfg.d_model, act_fn="gelu")
    return GPT(cfg, model.tokenizer).to(model.W_E.dtype).eval()


def _table(model: GPT) -> str:
    """The tokens that drive the neurons of the first MLP most, for the neurons with the largest
    weights from the embedding."""
    with torch.no_grad():
        drive = algebra.neuron_reads(model)[0].AB  # d_vocab d_mlp
    drive = drive - drive.mean(0)
    rows = []
    for neuron in drive.norm(dim=0).topk(min(EXAMPLES, drive.shape[1])).indices.tolist():
        best = drive[:, neuron].topk(min(TOP, drive.shape[0]))
        named = zip(model.to_str_tokens(best.indices), best.values.tolist(), strict=True)
        rows.append({"MLP0": f"neuron {neuron}", "driven_most_by": list(named)})
    caption = "The part of each token in the input of a neuron, less the mean over all tokens."
    return html_tables.fragment(html_tables.table(DataFrame(rows), caption=caption))
