"""The history of a model's training, and its scores on a corpus.

- recording: the measurements of each recorded step of a run.
- in_context: the loss by token index, its slope, the in-context score.
- dynamics: a training history read: when heads formed, and the phase change.
- evaluation: the loss and the heads' scores over a corpus, with standard errors.
"""

__all__ = ["dynamics", "evaluation", "in_context", "recording"]
