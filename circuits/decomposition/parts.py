"""Parts: terms with labels, the whole that they sum to, and the remainder."""

import difflib
from collections.abc import Iterator, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor


class Parts(Mapping[str, Tensor]):
    """Terms by label, `parts["L1H4"]`, each with the shape of `whole`. `remainder` is the whole
    less the sum of the terms; only rounding errors should remain. `stack` has the terms in order,
    [part *rest]. KeyError with the nearest labels for an unknown label."""

    def __init__(
        self,
        labels: Sequence[str],
        stack: Float[Tensor, "part *rest"],
        whole: Float[Tensor, "*rest"],
    ) -> None:
        if len(labels) != len(stack) or stack.shape[1:] != whole.shape:
            raise ValueError(
                f"{len(labels)} labels for terms {list(stack.shape)} of {list(whole.shape)}"
            )
        self.labels, self.stack, self.whole = tuple(labels), stack, whole

    def __getitem__(self, label: str) -> Tensor:
        if label not in self.labels:
            near = difflib.get_close_matches(label, self.labels, 3)
            raise KeyError(f"no part {label!r}; {f'the nearest are {near}; ' if near else ''}"
                           f"there are {list(self.labels)}")  # fmt: skip
        return self.stack[self.labels.index(label)]

    def __eq__(self, other: object) -> bool:
        return self is other  # mappings compare values, but == of two tensors is a tensor

    def __hash__(self) -> int:
        return id(self)

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def total(self) -> Float[Tensor, "*rest"]:
        """The sum of the parts."""
        return self.stack.sum(0)

    @property
    def remainder(self) -> Float[Tensor, "*rest"]:
        """The whole less the sum of the parts."""
        return self.whole - self.total

    def __repr__(self) -> str:
        missing = self.remainder.abs().max().item() if self.whole.numel() else 0.0
        return f"Parts({', '.join(self.labels)}; remainder at most {missing:.1e})"
