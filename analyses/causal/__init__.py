"""What causes what: a run is changed somewhere, and the change is followed.

- metrics: one number for each example of a run.
- patching: activations of another run, put in one place at a time.
- path_patching: the same along single edges.
- attribution: patching to first order, by gradients.
- ablation: what is lost without a part.
- idealised: what is lost when a head has a pattern that one can write down.
- discovery: circuits found edge by edge, and judged.
"""

__all__ = ["ablation", "attribution", "discovery", "idealised", "metrics", "patching",
           "path_patching"]  # fmt: skip
