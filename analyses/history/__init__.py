"""The history of a model's training, and its scores on a corpus.

- step_files: a file for each recorded step, and one file for all steps.
- recording: the measurements of each recorded step of a run.
- in_context: the loss by token index, its slope, and the in-context score.
- dynamics: reading a history: the steps at which heads formed, and the phase change.
- evaluation: the loss and the heads' scores over a corpus, with standard errors.
"""

__all__ = ["dynamics", "evaluation", "in_context", "recording", "step_files"]
