"""One function per figure, and three visible dicts of them: of one model, of the training histories
of several, and of models that a figure trains itself."""

from collections.abc import Callable, Sequence

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
    induction_ablation,
    induction_evaluators,
    induction_heads,
    induction_idealised,
    induction_index,
    induction_table,
    induction_tokens,
    induction_training,
    toys_bietti,
    toys_edelman,
    toys_nichani,
    toys_pattern_matching,
)
from analyses.figures.drawing import Drawing, LeftOut, Verdict
from analyses.figures.runs import CONTROL, ZOO
from circuits.model import GPT
from circuits.pretrained import load

__all__ = [
    "FIGURES",
    "HISTORIES",
    "IDENTITIES",
    "TOYS",
    "Drawing",
    "LeftOut",
    "Verdict",
    "draw",
    "drawn_from",
    "every",
    "usual_model",
]

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
    "induction/literal-copying": induction.literal_copying,
    "circuits/estimates": circuits.estimates,
    "circuits/few-edges": circuits.few_edges,
}
HISTORIES: dict[str, Callable[[Sequence[str]], Drawing]] = {
    "induction/phase-change": induction_training.phase_change,
    "induction/index-derivative": induction_training.index_derivative,
    "induction/heads-over-training": induction_training.heads_over_training,
    "induction/loss-curves": induction_training.loss_curves,
    "induction/trajectories": induction_tokens.trajectories,
    "induction/before-and-after": induction_tokens.before_and_after,
    "induction/token-losses": induction_tokens.token_losses,
    "induction/smeared-keys": induction_training.smeared_keys,
    "induction/ablation": induction_ablation.of_the_change,
    "induction/full-ablation": induction_ablation.of_the_change_in_full,
    "induction/ablated-score": induction_ablation.of_the_score,
    "induction/ablation-on-text": induction_ablation.on_text,
    "induction/copying-heads": induction_heads.table_of_heads,
    "induction/model-analysis": induction_table.model_analysis,
    "induction/score-choice": induction_index.score_choice,
    "induction/loss-by-index": induction_index.loss_by_index,
    "induction/loss-speed": induction_training.loss_speed,
    "induction/depth": induction_heads.depth,
    "induction/prefix-and-copying": induction_heads.prefix_and_copying,
    "induction/copying-evaluator": induction_evaluators.copying_evaluator,
    "induction/prefix-evaluator": induction_evaluators.prefix_evaluator,
}
"Figures of training histories, by the names of models that ship or folders of `circuits train`."
TOYS: dict[str, Callable[[], Drawing]] = {
    "induction/triggers": toys_bietti.triggers,
    "induction/markov-chains": toys_edelman.markov_chains,
    "induction/causal-graph": toys_nichani.causal_graph,
    "induction/pattern-matching": toys_pattern_matching.pattern_matching,
    "circuits/known": circuits.known_circuit,
}
"Figures that train or build their own models, and so take none."

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


def every() -> list[str]:
    """The names of all figures, paper by paper."""
    names = [*FIGURES, *HISTORIES, *TOYS]
    papers = list(dict.fromkeys(name.split("/")[0] for name in names))
    return sorted(names, key=lambda name: papers.index(name.split("/")[0]))


def usual_model(name: str) -> str:
    """The model that ships which a figure is drawn from unless another one is asked for; empty for
    one that is drawn from several, or trains its own."""
    if name in HISTORIES or name in TOYS:
        return ""
    return "attn-only-1l" if name in ONE_LAYER else "attn-only-2l"


def drawn_from(name: str, model: str = "") -> tuple[str, ...]:
    """The models that a figure is drawn from: the one asked for or the usual ones; a figure of
    histories shows the one asked for beside its controls. None for one that trains its own."""
    if name in TOYS:
        return ()
    if name not in HISTORIES:
        return (model or usual_model(name),)
    if not model:
        return ZOO
    beside = ZOO[2:] if name == "induction/smeared-keys" else (CONTROL,)
    return tuple(dict.fromkeys((model, *beside)))


def draw(name: str, model: GPT | str = "", loaded: Callable[[str], GPT] = load) -> Drawing:
    """One figure of a paper, drawn from a model, or from the model or models that go by a name,
    see `drawn_from`, which `loaded` gives.

    KeyError with what exists for an unknown figure or model; LeftOut where the figure cannot be of
    the model that was asked for; ValueError for a GPT where a history is read.
    """
    if name in FIGURES:
        return FIGURES[name](
            loaded(model or usual_model(name)) if isinstance(model, str) else model
        )
    if name not in HISTORIES and name not in TOYS:
        raise KeyError(f"no figure {name!r}; there are {every()}")
    if not isinstance(model, str):
        raise ValueError(f"{name} is not drawn from a GPT: name a model that ships, or a folder")
    if name in HISTORIES:
        return HISTORIES[name](drawn_from(name, model))
    if model:
        raise LeftOut(f"it trains a model of its own, and is never of {model}")
    return TOYS[name]()
