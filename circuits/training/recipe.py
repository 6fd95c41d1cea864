"""Recipe: the settings of a training run, checked when it is made, and its JSON form."""

import json
import math
from dataclasses import asdict, dataclass, fields

_MAY_BE_ZERO = {"muon_lr", "muon_decay", "warmup", "final"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training run. ValueError for values out of range."""

    steps: int
    batch_size: int
    "The number of rows per step, over all micro-batches and processes."
    lr: float = 2e-3
    "The learning rate of AdamW, for embeddings, unembedding, norms and biases."
    muon_lr: float = 0.01
    """The learning rate of Muon, for W_Q, W_K, W_V, W_O, W_in and W_out: about the spectral norm of
    a step. With 0 AdamW trains these too."""
    muon_decay: float = 0.1
    """Each step multiplies W_V, W_O and W_out by 1 - muon_lr * muon_decay. With 0 they grow through
    the whole run, and layer 0 of a deep model writes much more than the embedding."""
    warmup: int = 100
    "The number of steps in which the learning rate rises linearly."
    final: float = 0.05
    "The share of the learning rate at the end of the cosine."
    clip: float = 1.0
    "The largest norm of the gradient of all parameters together."
    evaluate_every: int = 500
    "The number of steps between two records."
    accumulate: int = 1
    "The number of micro-batches of a step, for rows that do not fit into memory at once."
    bf16: bool = False
    "Matrix products in bfloat16 (torch.autocast): faster on a GPU, not on a CPU without AMX."
    compile: bool = False
    "torch.compile of the loss: faster in long runs. Hooks attached later compile it again."

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
        """The factor of the learning rate at a step: a linear warm-up times a cosine that ends near
        `final`."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return min(1.0, (step + 1) / max(1, self.warmup)) * (self.final + (1 - self.final) * cosine)

    def to_json(self) -> str:
        """The recipe as JSON text; `from_json` gives an equal recipe back."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """The recipe in the JSON text of `to_json`. Missing fields have their default.

        ValueError names a field that does not exist, and a missing field without default.
        """
        given, known = json.loads(text), [field.name for field in fields(cls)]
        if not isinstance(given, dict):
            raise ValueError(f"a recipe must be fields by name, got {type(given).__name__}")
        if unknown := sorted(given.keys() - set(known)):
            raise ValueError(f"a recipe has no {unknown}; its fields are {known}")
        if missing := sorted({"steps", "batch_size"} - given.keys()):
            raise ValueError(f"a recipe needs {missing}")
        return cls(**given)
