"""What idealised patterns recover of a head (Olsson et al. 2022, R1)."""

from collections.abc import Mapping, Sequence

from jaxtyping import Int
from torch import Tensor
from xarray import DataArray, Dataset

from analyses import plots, prompts
from analyses.causal import Task, idealised
from analyses.heads import attention
from analyses.papers.figures.drawing import INDUCTION, Drawing, Verdict
from analyses.prompts import passages
from circuits.model import GPT

MOST = 0.5
"A pattern describes heads of which it recovers more than this."
BOUNDS = (-1.0, 1.75)
COLOURS = {
    "previous token": plots.ROLE_COLOURS["previous token"],
    "induction": plots.ROLE_COLOURS["induction"],
    "induction, 2 tokens": "#E69F00",
    "uniform": plots.CONTROL,
}
PAPER = (
    "paper: the token before recovers 99% of a previous-token head, exact matches some 65% of "
    "induction heads, matches of two tokens another 10%"
)


def recovered(model: GPT) -> Drawing:
    """R1, "Comments & Replications": heads that are ablated come back with a pattern which one can
    write down. The token before is nearly all of a previous-token head; exact matches are most of
    induction heads, and matches of two tokens some of the rest."""
    roles = attention.taxonomy(model).role
    early = roles.layer < model.cfg.n_layers - 1
    previous = _named(roles, (roles == "previous token") & early)
    induction = _named(roles, roles == "induction")
    rows = {heads: "previous token" for heads in _each_and_all(previous)}
    rows |= {heads: "induction" for heads in _each_and_all(induction)}
    rows |= {(str(head),): str(role).replace("-", "other") for head, role in
             zip(roles.label.values.ravel(), roles.values.ravel(), strict=True)
             if (str(head),) not in rows}  # fmt: skip
    texts = {"text": passages.tokens(model)} if model.tokenizer is not None else {}
    texts["random tokens said twice"] = prompts.repeated(model)
    found = {name: _measured(model, tokens, list(rows)) for name, tokens in texts.items()}
    figure, axes = plots.grid(1, len(texts), (6.4, 0.7 + 0.36 * len(rows)))
    for ax, (name, measured) in zip(axes[0], found.items(), strict=True):
        plots.shares(measured.share, measured.error, _gaps(measured), COLOURS, ax, title=name)
        labels = [f"{' + '.join(heads)}\n{role}" for heads, role in rows.items()]
        ax.set_yticks(range(len(rows)), labels, fontsize=8)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False)
    return Drawing(
        figure,
        "Idealised patterns in the place of a head's own",
        f"Induction heads, Comments & Replications (R1, Redwood Research), {INDUCTION}",
        "What heads with another pattern recover of the loss between zero ablation (0) and their "
        "own pattern (1). Patterns: the token before; what followed earlier copies of the token, "
        "evenly, or else the first token; the same, of copies that match two tokens where any do; "
        "all tokens alike. On the right the gap in nats, clear from three standard errors on. "
        "Bars are one standard error over examples, triangles lie outside. The claim holds where "
        "more than half is recovered of the previous-token heads before the last layer and of the "
        f"induction heads, on {next(iter(texts))}.",
        _verdict(found, previous, induction),
    )  # fmt: skip


def _named(roles: DataArray, which: DataArray) -> list[str]:
    return [str(label) for label in roles.label.values[which.values]]


def _each_and_all(heads: Sequence[str]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys([*((head,) for head in heads), *([tuple(heads)] if heads else [])]))


def _measured(
    model: GPT, tokens: Int[Tensor, "batch pos"], rows: Sequence[Sequence[str]]
) -> Dataset:
    found = idealised.recovered(idealised.substituted(Task(model, tokens), rows))
    words = "share of the loss gap recovered"
    return found.assign(share=found.share.assign_attrs(bounds=BOUNDS, long_name=words))


def _gaps(found: Dataset) -> list[str]:
    clear = found.share.notnull().all("pattern")
    columns = (found.gap.values, found.gap_error.values, clear.values)
    return [
        f"{gap:.2f} nats" if is_clear else f"no clear gap\n({gap:.2f} ± {error:.2f} nats)"
        for gap, error, is_clear in zip(*columns, strict=True)
    ]


def _verdict(
    found: Mapping[str, Dataset], previous: Sequence[str], induction: Sequence[str]
) -> Verdict:
    """By what was measured first; all of it in words."""
    if not (previous and induction):
        lacking = "an induction head" if previous else "a previous-token head in an early layer"
        return Verdict(False, f"{PAPER}; here the model lacks {lacking}")
    told, shares = [], []
    for name, measured in found.items():
        before = measured.sel(component=" + ".join(previous), pattern="previous token")
        after = measured.sel(component=" + ".join(induction))
        one, two = after.sel(pattern="induction"), after.sel(pattern="induction, 2 tokens")
        shares.append((float(before.share), float(one.share)))
        told.append(
            f"on {name} {before.share:.0%} ± {before.error:.0%}, {one.share:.0%} ± {one.error:.0%} "
            f"and {two.share - one.share:+.0%}"
        )
    return Verdict(min(shares[0]) > MOST, f"{PAPER}; here {'; '.join(told)}")
