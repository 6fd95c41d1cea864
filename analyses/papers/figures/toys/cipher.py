"""Induction heads, Argument 4: a head that translates (O14), in a toy that reads a cipher."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.axes import Axes
from xarray import DataArray

from analyses import plots, prompts
from analyses.heads import attention, detectors, induction, masks, translation
from analyses.labelled import of_patterns, to_numpy
from analyses.papers.figures.record import Finding, Picture, toy_figure
from analyses.papers.toys import cipher as toy
from circuits.data import Ciphered
from circuits.model import GPT

MATCHES = attention.THRESHOLD
"The least prefix matching through the cipher of a translation head."
RAISES = detectors.DETECTORS["copying"].threshold
"The share of a translation head's raise: above this for the cipher, below it for the token."
SUCCEEDS, FAILS = 0.85, 0.1
"The share of right guesses: at least this for the model, at most this for the control."
CIPHER, ITSELF = "cipher of the attended token", "the token itself"
COLOURS = {CIPHER: "#009E73", ITSELF: "#CC79A7"}


@dataclass(frozen=True)
class Heads:
    """The scores of the heads of one model, each (layer, head)."""

    model: GPT
    data: Ciphered

    @cached_property
    def matching(self) -> DataArray:
        """Prefix matching through the cipher."""
        return translation.prefix_matching(self.model, self.data.cipher)

    @cached_property
    def translating(self) -> DataArray:
        """The share of the raised logits that falls on the attended token's cipher."""
        return translation.copying(self.model, self.data.cipher)

    @cached_property
    def copying(self) -> DataArray:
        """The share of the raised logits that falls on the attended token itself."""
        return induction.copying(self.model)

    @property
    def found(self) -> list[str]:
        """The translation heads, best first."""
        both = (self.matching > MATCHES) & (self.translating > RAISES) & (self.copying < RAISES)
        order = np.argsort(-self.matching.values, axis=None)
        labels, which = self.matching.label.values.ravel(), both.values.ravel()
        return [str(labels[i]) for i in order if which[i]]


@toy_figure(
    "induction/cipher",
    "Translation: passages in another language",
    "Induction heads, Argument 4 (O14)",
    "a head that translates has prefix matching .85 and copying .20 (literal copies: .75 and .89)",
)
def cipher(seed: int = 0, *, steps: int = toy.STEPS) -> Finding:
    """A head attends through a permutation of the tokens: from a token of the second passage to the
    token that followed its original in the first. The control is a model whose second passages are
    drawn anew."""
    data, drawn = (toy.passages(redrawn=redrawn, seed=10 * seed) for redrawn in (False, True))
    model, control = (toy.transformer(data, seed=seed) for _ in range(2))
    before = Heads(toy.transformer(data, seed=seed), data)
    ours, other = toy.learn(model, data, steps), toy.learn(control, drawn, steps)
    after, beside = Heads(model, data), Heads(control, data)
    end, left = (float(run.sel(what="accuracy")[-1]) for run in (ours, other))
    untrained, none = (float(heads.matching.max()) for heads in (before, beside))
    at = np.unravel_index(after.matching.values.argmax(), after.matching.shape)
    best, said, itself = (float(score[at]) for score in
                          (after.matching, after.translating, after.copying))  # fmt: skip
    name, literal = str(after.matching.label[at].item()), attention.prefix_matching(model)

    def picture() -> Picture:
        figure, axes = plots.grid(1, 4, (3.9, 3.4))
        ax = axes[0, 0]
        for run, label, colour in ((ours, "the cipher of the first", plots.TRAINED),
                                   (other, "drawn anew", plots.CONTROL)):  # fmt: skip
            ax.plot(run.step, run.sel(what="accuracy"), color=colour, label=label)
        ax.set(title="second passage right", xlabel="step", ylabel="share", ylim=(0, 1.03))
        ax.legend(frameon=False, fontsize=8, loc="upper left")
        plots.bars(after.matching, axes[0, 1], control=beside.matching)
        axes[0, 1].set_title("prefix matching through the cipher")
        _raised(after, axes[0, 2])
        _one_row(model, data, int(at[0]), int(at[1]), axes[0, 3], name)
        return figure

    return Finding(
        bool(after.found) and end >= SUCCEEDS and left <= FAILS and max(untrained, none) <= MATCHES,
        f"translation heads: {', '.join(after.found) or 'none'}; {name} has prefix matching "
        f"{best:.2f} through the cipher (wanted {MATCHES}) and {float(literal[at]):.2f} on tokens "
        f"that are repeated as they are; {said:.2f} of its raise falls on the attended token's "
        f"cipher (wanted {RAISES}) and {itself:.2f} on the token itself (at most {RAISES}; chance "
        f"{after.copying.attrs['chance']:.2f}); the best prefix matching through the cipher is "
        f"{untrained:.2f} untrained and {none:.2f} after training on second passages drawn anew "
        f"(at most {MATCHES}); the model guesses {end:.2f} right (wanted {SUCCEEDS}), the model of "
        f"passages drawn anew {left:.2f} (at most {FAILS})",
        "First panel: the share of the tokens of the second passage, but for its first, that the "
        "model guesses right. Second: prefix matching through the cipher of each head, and of the "
        "model whose second passages were drawn anew. Third: the raise of each head, which is the "
        "share of the positive logits of the sample that falls on one token, weighted by "
        "attention. Right: the pattern of the head with the most prefix matching on one row; "
        f"circles: the token that followed the original. A row is a passage of {data.shortest} to "
        f"{data.longest} random tokens, then the same passage with each token replaced by its "
        "cipher: a permutation of the tokens, the same in all rows. The model is trained on second "
        "passages alone. It never reads a passage twice as it is, so the paper's prefix matching "
        "on literal repeats is printed and not tested. The test: some head has prefix matching "
        f"above {MATCHES} through the cipher, more than {RAISES} of its raise is on the attended "
        "token's cipher, and less than the same share is on the token itself; no head of the "
        f"untrained model or of the control has prefix matching above {MATCHES} through the "
        f"cipher; the model guesses {SUCCEEDS:.0%} or more right, the control {FAILS:.0%} or less.",
        picture,
    )


def _raised(heads: Heads, ax: Axes) -> None:
    """The share of each head's raise on the cipher of the attended token, and on the token."""
    labels = heads.matching.label.values.ravel()
    for side, (score, name) in enumerate(((heads.translating, CIPHER),
                                          (heads.copying, ITSELF))):  # fmt: skip
        ax.bar(np.arange(len(labels)) + 0.4 * side, score.values.ravel(), 0.4,
               color=COLOURS[name], label=name)  # fmt: skip
    ax.axhline(RAISES, color="0.3", ls=":", lw=0.9, label="threshold")
    ax.axhline(heads.copying.attrs["chance"], color="0.3", ls="--", lw=0.8, label="chance")
    ax.set(title="raised by each head", ylabel="share of its raise", ylim=(0, 1))
    ax.set_xticks(np.arange(len(labels)) + 0.2, labels)
    ax.legend(frameon=False, fontsize=8)


def _one_row(model: GPT, data: Ciphered, layer: int, head: int, ax: Axes, name: str) -> None:
    """The pattern of one head on one row. Circles mark the token after each original."""
    tokens = prompts.ciphered(model, data.cipher, batch=1)
    pattern = of_patterns(model, tokens, lambda pattern: pattern)[0, layer, head]
    seen = DataArray(to_numpy(pattern), dims=("destination", "source"),
                     attrs={"bounds": (0.0, 1.0), "long_name": "attention"})  # fmt: skip
    plots.heatmap(seen, ax, f"{name} on a passage and its cipher")
    to, match = masks.to_successors(tokens, cipher=data.cipher)[0].nonzero(as_tuple=True)
    ax.scatter(to_numpy(match), to_numpy(to), s=50, facecolors="none", edgecolors="#D55E00", lw=1.2)
