"""One function per figure, and three visible dicts of them: of one model, of the training histories
of several, and of models that a figure trains itself."""

from collections.abc import Callable, Sequence

from analyses.papers.figures import circuits, framework, induction, toys
from analyses.papers.figures.drawing import Drawing, LeftOut, Verdict
from analyses.papers.figures.runs import CONTROL, ZOO
from circuits.io import load
from circuits.model import GPT

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
    "framework/architecture": framework.architecture.architecture,
    "framework/residual-stream": framework.architecture.residual_stream,
    "framework/virtual-weights": framework.architecture.virtual_weights,
    "framework/bandwidth": framework.architecture.bandwidth_use,
    "framework/moves": framework.architecture.moves,
    "framework/one-layer": framework.expansion.one_layer,
    "framework/expansion": framework.expansion.expansion_terms,
    "framework/circuits": framework.expansion.token_circuits,
    "framework/skip-trigrams": framework.tables.skip_trigrams_table,
    "framework/split-words": framework.tables.split_words,
    "framework/classes": framework.tables.classes,
    "framework/head-dump": framework.dumps.head_dump,
    "framework/positions": framework.heads.positions,
    "framework/positional-table": framework.dumps.positional_table,
    "framework/bugs": framework.dumps.bugs,
    "framework/eigenvalues": framework.heads.eigenvalues,
    "framework/copying": framework.heads.copying_histogram,
    "framework/two-layers": framework.expansion.two_layers,
    "framework/qk-expansion": framework.expansion.qk_expansion,
    "framework/composition": framework.composition.heatmaps,
    "framework/wiring": framework.composition.diagram,
    "framework/story": framework.text.passage,
    "framework/induction-head": framework.text.induction_head,
    "framework/repeats": framework.heads.repeats,
    "framework/key-tokens": framework.text.by_token,
    "framework/corner": framework.heads.corner,
    "framework/term-importance": framework.importance.terms,
    "framework/layer-importance": framework.importance.layers,
    "framework/erratum": framework.erratum.erratum,
    "framework/erratum-diagrams": framework.composition.before_and_after,
    "framework/mlps": framework.mlps.mlps,
    "induction/prefix-matching": induction.sequences.prefix_matching,
    "induction/loss-by-position": induction.sequences.loss_by_position,
    "induction/idealised": induction.idealised.recovery,
    "induction/literal-copying": induction.sequences.literal_copying,
    "circuits/estimates": circuits.estimates,
    "circuits/few-edges": circuits.few_edges,
}
HISTORIES: dict[str, Callable[[Sequence[str]], Drawing]] = {
    "induction/phase-change": induction.training.phase_change,
    "induction/index-derivative": induction.training.index_derivative,
    "induction/heads-over-training": induction.training.heads_over_training,
    "induction/loss-curves": induction.training.loss_curves,
    "induction/trajectories": induction.tokens.trajectories,
    "induction/before-and-after": induction.tokens.before_and_after,
    "induction/token-losses": induction.tokens.token_losses,
    "induction/smeared-keys": induction.training.smeared_keys,
    "induction/ablation": induction.ablation.of_the_change,
    "induction/full-ablation": induction.ablation.of_the_change_in_full,
    "induction/ablated-score": induction.ablation.of_the_score,
    "induction/ablation-on-text": induction.ablation.on_text,
    "induction/copying-heads": induction.heads.table_of_heads,
    "induction/model-analysis": induction.table.model_analysis,
    "induction/score-choice": induction.index.score_choice,
    "induction/loss-by-index": induction.index.loss_by_index,
    "induction/loss-speed": induction.training.loss_speed,
    "induction/depth": induction.heads.depth,
    "induction/prefix-and-copying": induction.heads.prefix_and_copying,
    "induction/copying-evaluator": induction.evaluators.copying_evaluator,
    "induction/prefix-evaluator": induction.evaluators.prefix_evaluator,
}
"Figures of training histories, by the names of models that ship or folders of `circuits train`."
TOYS: dict[str, Callable[[], Drawing]] = {
    "induction/triggers": toys.bietti.triggers,
    "induction/markov-chains": toys.edelman.markov_chains,
    "induction/causal-graph": toys.nichani.causal_graph,
    "induction/pattern-matching": toys.pattern_matching.pattern_matching,
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
