"""One function per figure, and one visible dict of them."""

from collections.abc import Callable

from analyses.figures import (
    circuits,
    framework,
    framework_architecture,
    framework_composition,
    framework_dumps,
    framework_erratum,
    framework_expansion,
    framework_importance,
    framework_mlps,
    framework_tables,
    framework_text,
    induction,
    induction_idealised,
)
from analyses.figures.drawing import Drawing, Verdict
from circuits.model import GPT

__all__ = ["FIGURES", "IDENTITIES", "Drawing", "Verdict", "draw", "usual_model"]

FIGURES: dict[str, Callable[[GPT], Drawing]] = {
    "framework/architecture": framework_architecture.architecture,
    "framework/residual-stream": framework_architecture.residual_stream,
    "framework/virtual-weights": framework_architecture.virtual_weights,
    "framework/bandwidth": framework_architecture.bandwidth_use,
    "framework/moves": framework_architecture.moves,
    "framework/one-layer": framework_expansion.one_layer,
    "framework/expansion": framework_expansion.expansion_terms,
    "framework/circuits": framework_expansion.token_circuits,
    "framework/skip-trigrams": framework_tables.skip_trigrams_table,
    "framework/split-words": framework_tables.split_words,
    "framework/classes": framework_tables.classes,
    "framework/head-dump": framework_dumps.head_dump,
    "framework/positions": framework.positions,
    "framework/positional-table": framework_dumps.positional_table,
    "framework/bugs": framework_dumps.bugs,
    "framework/eigenvalues": framework.eigenvalues,
    "framework/copying": framework.copying_histogram,
    "framework/two-layers": framework_expansion.two_layers,
    "framework/qk-expansion": framework_expansion.qk_expansion,
    "framework/composition": framework_composition.heatmaps,
    "framework/wiring": framework_composition.diagram,
    "framework/story": framework_text.passage,
    "framework/induction-head": framework_text.induction_head,
    "framework/repeats": framework.repeats,
    "framework/key-tokens": framework_text.by_token,
    "framework/corner": framework.corner,
    "framework/term-importance": framework_importance.terms,
    "framework/layer-importance": framework_importance.layers,
    "framework/erratum": framework_erratum.erratum,
    "framework/erratum-diagrams": framework_composition.before_and_after,
    "framework/mlps": framework_mlps.mlps,
    "induction/prefix-matching": induction.prefix_matching,
    "induction/loss-by-position": induction.loss_by_position,
    "induction/idealised": induction_idealised.recovered,
}
ONE_LAYER = frozenset(
    {
        "framework/one-layer",
        "framework/expansion",
        "framework/circuits",
        "framework/skip-trigrams",
        "framework/split-words",
        "framework/classes",
        "framework/head-dump",
        "framework/positions",
        "framework/positional-table",
        "framework/bugs",
        "framework/eigenvalues",
        "framework/copying",
    }
)
"Figures of the paper's one-layer model; all others are of a two-layer model."

IDENTITIES: frozenset[str] = frozenset(
    {"framework/architecture", "framework/residual-stream", "framework/one-layer",
     "framework/expansion", "framework/two-layers", "framework/qk-expansion",
     "framework/erratum", "framework/mlps"}
)  # fmt: skip
"Figures whose verdict is a law: true of every model, trained or not."


def usual_model(name: str) -> str:
    """The model that ships which a figure is drawn from unless another one is asked for."""
    return "attn-only-1l" if name in ONE_LAYER else "attn-only-2l"


def draw(name: str, model: GPT) -> Drawing:
    """One figure of a paper drawn from a model; KeyError with what exists for an unknown name."""
    if name not in FIGURES:
        raise KeyError(f"no figure {name!r}; there are {list(FIGURES)}")
    return FIGURES[name](model)
