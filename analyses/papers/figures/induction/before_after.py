"""Induction heads, Argument 1: tokens before and after the phase change (O8, O9)."""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from torch import Tensor
from xarray import DataArray

from analyses import losses, plots
from analyses.history.dynamics import around
from analyses.history.step_files import numbered_files
from analyses.labelled import to_numpy, words_of
from analyses.papers.figures import panels
from analyses.papers.figures.induction.tokens import matches
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import Run, judged_each, paired
from analyses.prompts import passages
from circuits.io import folder_of, load, load_weights, read_weights
from circuits.model import GPT

SHOWN = 118
"The number of tokens of the story that are shown."
WINDOWS = 250
"The number of held-out windows of text."
MORE = 0.3
"The least number of nats by which repeats must fall more than other tokens."
DRAWN = (
    "Drawn is the beginning of our story, once for each run. Blue: the loss of the token is "
    "smaller after the phase change; red: larger; full at 5 nats. Framed: right repeats. "
)
NAMES = ("Hartley", "Wexcombe", "Brindlemere")
"The names in our story. Each has several tokens."


@history_figure(
    "induction/before-and-after",
    "The loss of each token before and after induction",
    "Induction heads, Argument 1 (O8)",
    "repeats get better, and tokens that another one followed before get worse",
)
def before_and_after(of: Sequence[Run]) -> Finding:
    """The change of the loss of each token in the phase change: the same model at both ends. The
    claim: right repeats improve, and tokens get worse where another token followed before."""
    ends = {run.name: _both_ends(run) for run in of if not lacks_ends(run)}

    def test(run: Run) -> tuple[bool, str]:
        right, wrong = gains(*ends[run.name])
        passes = right[0] >= MORE and right[1] > 0 and wrong[0] < 0
        return passes, "; ".join(
            f"{name} repeats gain {mean:+.2f} nats ({low:+.2f} to {high:+.2f}) more than all other "
            "tokens"
            for name, (mean, low, high) in (("right", right), ("wrong", wrong))
        )

    def picture() -> Picture:
        figure, axes = plots.grid(len(ends), 1, (9.6, 1.5))
        for (name, pair), ax in zip(ends.items(), axes[:, 0], strict=True):
            _story(name, *pair, ax)
        return figure

    return Finding(
        *judged_each(of, lacks_ends, test),
        (DRAWN if ends else "")
        + "The gain of a token is its loss before the phase change less its loss after it, in the "
        "same model. A right repeat is a token that also followed an earlier copy of the token "
        "before it. At a wrong repeat the token before it also came earlier, but other tokens "
        f"followed it there. The test, on up to {WINDOWS} windows of held-out text: right repeats "
        f"gain at least {MORE} nats more than all other tokens, with the interval over windows "
        "above 0; wrong repeats gain less than all other tokens.",
        picture if ends else None,
    )


def lacks_ends(run: Run) -> str:
    """The thing that a run lacks to be compared with itself."""
    if not run.window:
        return "no phase change"
    if _files(run) is None:
        return "no weights at both ends of its phase change"
    return "" if load(run.name).tokenizer is not None else "no tokenizer"


def _files(run: Run) -> tuple[Path, Path] | None:
    """The files of weights nearest to both ends of the phase change. None unless the two files lie
    on different sides of its middle."""
    assert run.window
    folder = Path(run.name) if Path(run.name).is_dir() else folder_of(run.name)
    kept = numbered_files(folder / "weights", "weights", ".safetensors")
    if not kept:
        return None
    first, last = (min(kept, key=lambda step: abs(step - end)) for end in run.window[:2])
    middle = (run.window.start + run.window.end) / 2
    return (kept[first], kept[last]) if first < middle < last else None


def _both_ends(run: Run) -> tuple[GPT, GPT]:
    files = _files(run)
    assert files
    models = copy.deepcopy(load(run.name)), copy.deepcopy(load(run.name))
    for model, file in zip(models, files, strict=True):
        load_weights(model, {name: w.float() for name, w in read_weights(file).items()})
    return models


Interval = tuple[float, float, float]
"A mean over windows and the ends of its interval."


def gains(before: GPT, after: GPT) -> tuple[Interval, Interval]:
    """The gain of right repeats less the gain of all other tokens of a held-out window, and the
    same for wrong repeats."""
    rows = passages.held_out(before, min(192, before.cfg.n_ctx))[:WINDOWS]
    gain = (losses.of_tokens(before, rows) - losses.of_tokens(after, rows)).double()
    right, wrong = (paired(_more(gain, kind)) for kind in matches(rows))
    return right, wrong


def _more(
    gain: Float[Tensor, "window next"], kind: Bool[Tensor, "window next"]
) -> Float[Tensor, " some"]:
    """The mean gain of a kind of tokens less the mean gain of all others, in windows with both."""
    both = kind.any(-1) & (~kind).any(-1)
    on, off = ((gain * which).sum(-1) / which.sum(-1).clamp(min=1) for which in (kind, ~kind))
    return (on - off)[both]


def _story(name: str, before: GPT, after: GPT, ax: Axes) -> None:
    rows = passages.tokens(before)[:1, :SHOWN]
    gain = losses.of_tokens(before, rows)[0] - losses.of_tokens(after, rows)[0]
    framed = (matches(rows)[0][0].nonzero()[:, 0] + 1).tolist()
    values = to_numpy(torch.nn.functional.pad(gain, (1, 0)))
    shown = DataArray(values, dims="token", attrs={"bounds": (-5.0, 5.0)})
    title = f"{name}, before and after (framed: induction is right)"
    plots.text(shown, before.to_str_tokens(rows[0]), ax, title, framed=framed)


@history_figure(
    "induction/token-losses",
    "One token gets easier, another harder",
    "Induction heads, Argument 1 (O9)",
    "in the phase change some tokens get much easier and others harder",
)
def token_losses(of: Sequence[Run]) -> Finding:
    """Losses of the tokens of our story over training. The claim: in the phase change some tokens
    get easier, here the tokens that complete a repeat."""

    told = [run for run in of if "story_loss" in run.history and load(run.name).tokenizer]

    def test(run: Run) -> tuple[bool, str]:
        assert run.window
        first, last = (around(run.history.story_loss, step).values for step in run.window[:2])
        fall, kinds = first - last, story_kinds(load(run.name))
        right, names = (kind[: len(fall)] for kind in kinds)
        means = [float(fall[kind].mean()) for kind in (right, ~right, right & names)]
        return means[0] - means[1] > MORE, (
            f"the loss of tokens that complete a repeat falls by {means[0]:.2f} nats, of the other "
            f"tokens by {means[1]:.2f}, of later pieces of names that complete a repeat by "
            f"{means[2]:.2f}"
        )

    def panel(run: Run, ax: Axes) -> None:
        loss = run.history.story_loss
        right, names = (kind[: loss.sizes["story_token"]] for kind in story_kinds(load(run.name)))
        lines = {"complete a repeat": (right, plots.TRAINED),
                 "later pieces of names, of these": (right & names, "#009E73"),
                 "others": (~right, "#D55E00")}  # fmt: skip
        for name, (kind, colour) in lines.items():
            mean = loss[:, kind].mean("story_token").assign_attrs(loss.attrs)
            plots.over_training(panels.smoothed(mean), ax, colours=[colour], names=[name])
        ax.set(ylim=(0, 12), ylabel="loss (nats)")
        run.band(ax)
        ax.legend(frameon=False, fontsize=7)

    return Finding(
        *judged_each(of, lacks_story, test),
        "Each line is the mean loss of one kind of tokens of our story, as far as every record "
        "keeps them. A token completes a repeat if the same token followed an earlier copy of the "
        "token before it. The second line is for the tokens among these that are the second or a "
        f"later piece of a name ({', '.join(NAMES)}). Band: the phase change. The test: in the "
        f"phase change the mean loss of tokens that complete a repeat falls by more than {MORE} "
        "nats more than the mean loss of the others.",
        (lambda: panels.row(told, panel, (2.5, 2.6))) if told else None,
    )


def lacks_story(run: Run) -> str:
    """The thing that a run lacks to show the tokens of our story."""
    if not run.window:
        return "no phase change"
    if "story_loss" not in run.history:
        return "no losses of the story in its history"
    return "" if load(run.name).tokenizer is not None else "no tokenizer"


def story_kinds(model: GPT) -> tuple[Bool[np.ndarray, " token"], Bool[np.ndarray, " token"]]:
    """For the tokens of our story from index 1 on: whether a token completes a repeat, and whether
    it is the second or a later piece of a name."""
    tokens = model.to_tokens(passages.passage("story"))[:, : model.cfg.n_ctx + 1]
    right = to_numpy(matches(tokens)[0][0])
    words = words_of(model, tokens[0, 1:])
    starts, text = np.cumsum([0, *(len(word) for word in words)]), "".join(words)
    later = np.zeros(len(words), dtype=bool)
    for name in NAMES:
        at = text.find(name)
        while at >= 0:
            later |= (starts[:-1] > at) & (starts[:-1] < at + len(name))
            at = text.find(name, at + 1)
    return right, later
