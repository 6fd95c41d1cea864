"""analyses: measures and pictures of the behaviour of a model. Each folder has modules on one
topic.

from analyses import attention, induction, patching, plots
attention.taxonomy(model)

- prompts: inputs for analyses: random tokens in known orders, and short passages.
- heads: the behaviour of single heads: attention, induction, copying, composition, skip-trigrams.
- terms: the use of the residual stream, and the terms of the path expansion.
- causal: the causes of a behaviour: patching, ablation, attribution, circuit discovery.
- history: measures of a model during training and over a corpus.
- plots: results as pictures and tables.
- explorer: all heads on one interactive page.
- papers: the figures of papers, the toys they need, and the report.
- cli: the command line.

A module is imported when it is first asked for, so that `import analyses` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analyses import explorer as explorer
    from analyses import labelled as labelled
    from analyses import plots as plots
    from analyses import prompts as prompts
    from analyses.causal import (
        Task,
        ablation,
        attribution,
        discovery,
        idealised,
        induction_task,
        metrics,
        patching,
        path_patching,
    )
    from analyses.cli import corpus, runs
    from analyses.heads import (
        attention,
        copying,
        detectors,
        head_composition,
        induction,
        logit_effects,
        long_context,
        masks,
        offset_preference,
        patterns,
        skip_trigrams,
    )
    from analyses.history import dynamics, evaluation, in_context, recording
    from analyses.papers import figures, report, toys
    from analyses.plots import html_tables
    from analyses.prompts import passages
    from analyses.terms import bandwidth, deletion, expansion, importance

FOLDERS = {
    "prompts": ["passages"],
    "heads": ["masks", "attention", "patterns", "long_context", "induction", "copying", "detectors",
              "offset_preference", "logit_effects", "skip_trigrams", "head_composition"],
    "terms": ["bandwidth", "deletion", "expansion", "importance"],
    "causal": ["metrics", "patching", "path_patching", "attribution", "discovery", "ablation",
               "idealised"],
    "history": ["recording", "in_context", "dynamics", "evaluation"],
    "plots": ["html_tables"],
    "explorer": [],
    "papers": ["figures", "toys", "report"],
    "cli": ["corpus", "runs"],
}  # fmt: skip
"The modules of each folder that users import."

_PATHS = {name: f"analyses.{folder}.{name}" for folder, names in FOLDERS.items() for name in names}
_PATHS |= {folder: f"analyses.{folder}" for folder in FOLDERS} | {"labelled": "analyses.labelled"}

_OBJECTS = {"Task": "analyses.causal.task", "induction_task": "analyses.causal.task"}

__all__ = [
    "Task",
    "ablation",
    "attention",
    "attribution",
    "bandwidth",
    "copying",
    "corpus",
    "deletion",
    "detectors",
    "discovery",
    "dynamics",
    "evaluation",
    "expansion",
    "explorer",
    "figures",
    "head_composition",
    "html_tables",
    "idealised",
    "importance",
    "in_context",
    "induction",
    "induction_task",
    "labelled",
    "logit_effects",
    "long_context",
    "masks",
    "metrics",
    "offset_preference",
    "passages",
    "patching",
    "path_patching",
    "patterns",
    "plots",
    "prompts",
    "recording",
    "report",
    "runs",
    "skip_trigrams",
    "toys",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _OBJECTS:
        return getattr(import_module(_OBJECTS[name]), name)
    if name not in _PATHS:
        raise AttributeError(f"analyses has no {name!r}; it has {__dir__()}")
    return import_module(_PATHS[name])


def __dir__() -> list[str]:
    return sorted([*_PATHS, *_OBJECTS])
