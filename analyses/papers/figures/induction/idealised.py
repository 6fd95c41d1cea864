"""The part of a head that idealised patterns recover (Olsson et al. 2022, R1)."""

from collections.abc import Mapping, Sequence

import xarray
from jaxtyping import Int
from torch import Tensor
from xarray import DataArray, Dataset

from analyses import plots, prompts
from analyses.causal import Task, idealised
from analyses.heads import attention
from analyses.papers.figures.record import Finding, Picture, figure
from analyses.prompts import passages
from circuits.model import GPT, Head

MOST = 0.5
"A pattern describes heads if it recovers more than this share."
EVERY, AT_ONCE = 4, 16
"Every fourth held-out window is read, some windows at a time."
BOUNDS = (-1.0, 1.75)
READINGS = ("induction", "own on matches")
"The two readings of an induction head's idealised pattern. Both must describe the head."
COLOURS = {
    "previous token": plots.ROLE_COLOURS["previous token"],
    "induction": plots.ROLE_COLOURS["induction"],
    "own on matches": "#009E73",
    "induction, 2 tokens": "#E69F00",
    "uniform": plots.CONTROL,
}
ASKED = {
    "previous token": ("previous token", "uniform"),
    "induction": (*READINGS, "induction, 2 tokens", "uniform"),
}
"The patterns that are tried for the heads of each role."


@figure(
    "induction/idealised",
    "Idealised patterns in the place of a head's own",
    "Induction heads, Comments & Replications (R1, Redwood Research)",
    "the token before recovers 99% of a previous-token head, exact matches some 65% of induction "
    "heads, matches of two tokens another 10%",
)
def recovered(model: GPT) -> Finding:
    """Ablated heads come back with a simple pattern in the place of their own. In the paper the
    token before is nearly all of a previous-token head, exact matches are most of induction heads,
    and matches of two tokens are some of the rest."""
    roles = attention.taxonomy(model).role
    early = roles.layer < model.cfg.n_layers - 1
    groups = {"previous token": _named(roles, (roles == "previous token") & early),
              "induction": _named(roles, roles == "induction")}  # fmt: skip
    groups = {role: heads for role, heads in groups.items() if heads}
    texts = {"random tokens said twice": prompts.repeated(model)}
    if model.tokenizer is not None:
        texts = {"held-out text": passages.held_out(model, _length(model))[::EVERY], **texts}
    found = {name: {role: _measured(model, tokens, role, _sets(heads, name != "held-out text"))
                    for role, heads in groups.items()}
             for name, tokens in texts.items()}  # fmt: skip
    return Finding(
        *_judged(found, groups),
        "Each mark is the share of the loss that heads recover with another pattern, between zero "
        "ablation (0) and their own pattern (1). Patterns: previous token attends to the token "
        "before; induction attends evenly to the tokens that followed earlier copies of the token, "
        "or to the first token if there is none; own on matches keeps the head's own attention to "
        "these tokens and puts the rest on the first token; induction, 2 tokens uses copies that "
        "match two tokens, if there are any; uniform attends to all tokens alike. On the right: "
        "the gap in nats, which is clear if it is more than three standard errors. Bars are one "
        "standard error over examples; triangles lie outside of the panel. The test, on "
        f"{next(iter(texts))}: more than half is recovered for the previous-token heads before the "
        "last layer together, and for the induction heads together with both patterns, induction "
        "and own on matches.",
        lambda: _picture(found),
    )


def _length(model: GPT) -> int:
    return min(192, model.cfg.n_ctx)


def _named(roles: DataArray, which: DataArray) -> list[str]:
    return [str(label) for label in roles.label.values[which.transpose(*roles.dims).values]]


def _sets(heads: Sequence[str], each: bool) -> list[tuple[str, ...]]:
    """All heads together. If `each`, every single head comes first."""
    alone = [(head,) for head in heads] if each else []
    return list(dict.fromkeys([*alone, tuple(heads)]))


def _measured(
    model: GPT, tokens: Int[Tensor, "batch pos"], role: str, sets: Sequence[Sequence[str]]
) -> Dataset:
    """The share that the patterns of a role recover for the heads of each set together."""
    parts = [_substituted(model, rows, role, sets) for rows in tokens.split(AT_ONCE)]
    joined = xarray.concat(parts, "example").transpose("component", "pattern", "example")
    return idealised.recovery(joined)


def _substituted(
    model: GPT, rows: Int[Tensor, "batch pos"], role: str, sets: Sequence[Sequence[str]]
) -> DataArray:
    task = Task(model, rows)

    def own(head: Head) -> Tensor:
        pattern = task.clean_run.cache["pattern", head.layer][:, head.head]
        return idealised.own_on_matches(pattern, rows)

    patterns = {name: own if name == "own on matches" else idealised.PATTERNS[name](rows)
                for name in ASKED[role]}  # fmt: skip
    return idealised.substitute(task, sets, patterns)


Found = Mapping[str, Mapping[str, Dataset]]
"The measures, by text and role."


def _picture(found: Found) -> Picture:
    rows = max(
        sum(one.sizes["component"] for one in by_role.values()) for by_role in found.values()
    )
    figure, axes = plots.grid(1, len(found), (6.4, 0.7 + 0.5 * max(rows, 1)))
    for ax, (name, by_role) in zip(axes[0], found.items(), strict=True):
        if not by_role:
            ax.text(0.5, 0.5, "no head to describe", transform=ax.transAxes, ha="center")
            continue
        joined = xarray.concat(list(by_role.values()), "component", join="outer")
        words = "share of the loss gap recovered"
        share = joined.share.assign_attrs(bounds=BOUNDS, long_name=words)
        plots.shares(share, ax, name, error=joined.error, notes=_gaps(joined), colours=COLOURS)
        labels = [f"{heads}\n{role}" for role, one in by_role.items()
                  for heads in one.component.values]  # fmt: skip
        ax.set_yticks(range(len(labels)), labels, fontsize=8)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _gaps(found: Dataset) -> list[str]:
    clear = found.share.notnull().any("pattern")
    columns = (found.gap.values, found.gap_error.values, clear.values)
    return [
        f"{gap:.2f} nats" if is_clear else f"no clear gap\n({gap:.2f} ± {error:.2f} nats)"
        for gap, error, is_clear in zip(*columns, strict=True)
    ]


def _judged(found: Found, groups: Mapping[str, Sequence[str]]) -> tuple[bool | None, str]:
    """The verdict by the first text, and the measures on all texts in words."""
    if not groups:
        return (
            None,
            "the model lacks previous-token heads before its last layer and induction heads",
        )
    told, passes = [], []
    for name, by_role in found.items():
        for role, heads in groups.items():
            wanted = READINGS if role == "induction" else ("previous token",)
            one = by_role[role].sel(component=" + ".join(heads))
            shares = [one.sel(pattern=pattern) for pattern in wanted]
            passes.append(all(bool(share.share > MOST) for share in shares))
            words = " and ".join(f"{share.share:.0%} ± {share.error:.0%}" for share in shares)
            told.append(f"on {name} {words} of {role} heads {' '.join(heads)}")
            if role == "induction":
                more = one.share.sel(pattern="induction, 2 tokens") - shares[0].share
                told.append(f"{more:+.0%} by matches of two tokens")
    return all(passes[: len(groups)]), "; ".join(told)
