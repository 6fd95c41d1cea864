"""Recipe: how to train, checked when it is made; JSON round trip."""

import json
import math
from dataclasses import asdict, dataclass, fields

_MAY_BE_ZERO = {"muon_lr", "muon_decay", "warmup", "final"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. ValueError for numbers that make no sense."""

    steps: int
    batch_size: int
    "Rows per step, of all micro-batches and processes together."
    lr: float = 2e-3
    "Of AdamW, for embeddings, unembedding, norms and biases."
    muon_lr: float = 0.01
    "Of Muon, for W_Q, W_K, W_V, W_O, W_in, W_out; it is the spectral size of a step. 0: AdamW."
    muon_decay: float = 0.0
    """The share of muon_lr by which each step first shrinks W_V, W_O and W_out. With 0 they grow as
    long as the model is trained, and layer 0 of a deep model drowns the embedding."""
    warmup: int = 100
    final: float = 0.05
    "Share of the learning rate that the cosine ends on."
    clip: float = 1.0
    "Largest norm of the gradient of all parameters together."
    evaluate_every: int = 500
    "Steps between two records."
    accumulate: int = 1
    "Micro-batches that a step's rows are cut into, where they do not fit into memory at once."
    bf16: bool = False
    "Matrix products in bfloat16 (torch.autocast). Pays on a GPU; not on a CPU without AMX."
    compile: bool = False
    "torch.compile of the loss. Pays in long runs; hooks attached later compile it anew."

    def __post_init__(self) -> None:
        for field in fields(self):
            value, name = getattr(self, field.name), field.name
            if isinstance(value, bool) != (field.type is bool):
                wanted = "True or False" if field.type is bool else "a number"
                raise ValueError(f"{name} must be {wanted}, got {value!r}")
            if field.type is bool:
                continue
            least = 0 if name in _MAY_BE_ZERO else 1e-12
            if not isinstance(value, int | float) or not least <= value < math.inf:
                raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
            if field.type is int and not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"a batch of {self.batch_size} rows cannot be cut into "
                f"accumulate={self.accumulate} equal parts"
            )

    def schedule(self, step: int) -> float:
        """Share of the learning rate at a step: linear warm-up, then a cosine to `final`."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return min(1.0, (step + 1) / max(1, self.warmup)) * (self.final + (1 - self.final) * cosine)

    def to_json(self) -> str:
        """The recipe as JSON text; `from_json` gives an equal recipe back."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """The recipe written by `to_json`, or by an earlier version that knew fewer fields.

        ValueError names a field that does not exist.
        """
        given, known = json.loads(text), [field.name for field in fields(cls)]
        if not isinstance(given, dict):
            raise ValueError(f"a recipe is fields by name, got {type(given).__name__}")
        if unknown := sorted(given.keys() - set(known)):
            raise ValueError(f"a recipe has no {unknown}; its fields are {known}")
        if missing := sorted({"steps", "batch_size"} - given.keys()):
            raise ValueError(f"a recipe needs {missing}")
        return cls(**given)
