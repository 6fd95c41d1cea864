"""HookPoint, an identity one can listen to: the functions attached to one activation.

A hook is a function in the list of one point. A point that nobody listens to returns its input
untouched; models ask `point.listening` before they compute what only a listener would see. Which
run a thread is in is the one thing kept elsewhere: hooks of a run hear that run alone.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

HookFn = Callable[..., Tensor | None]
"fn(activation, hook): None leaves the activation, a tensor of the same shape replaces it."

_RUN: ContextVar[object | None] = ContextVar("run", default=None)
"The run_with_hooks or run_with_cache that this thread is in; the inner one, if one is in another."


@dataclass(frozen=True, eq=False)
class Hook:
    """One attached function; permanent ones outlive reset_hooks(), those of a run hear it alone."""

    fn: HookFn
    permanent: bool = False
    run: object | None = None

    @property
    def hears(self) -> bool:
        """True in the run that it was attached for; always, if that is none."""
        return self.run is None or self.run is _RUN.get()


class HookPoint(nn.Module):
    """The identity, where functions can see and replace an activation.

    `pos_dim` is where positions lie; `shared` marks an input that is used elsewhere too, so that
    listeners get a copy of their own; `per_head` marks a value that is `n_heads` times the
    size of the stream and is cached only when it is named.
    """

    def __init__(self, *, pos_dim: int = 1, shared: bool = False, per_head: bool = False) -> None:
        super().__init__()
        self.name = ""
        self.pos_dim, self.shared, self.per_head = pos_dim, shared, per_head
        self.fwd: list[Hook] = []
        self.bwd: list[Hook] = []
        self.ctx: dict[str, Any] = {}

    @property
    def listening(self) -> bool:
        """True when anything attached here hears this run: our hooks, or torch's module hooks."""
        return bool(
            (self.fwd and hearing(self.fwd))
            or (self.bwd and hearing(self.bwd))
            or self._forward_hooks
            or self._forward_pre_hooks
            or self._backward_hooks
            or self._backward_pre_hooks
        )

    def __call__(self, activation: Tensor) -> Tensor:
        return super().__call__(activation) if self.listening else activation

    def forward(self, activation: Tensor) -> Tensor:
        if self.shared:
            activation = activation.clone()
        for hook in hearing(self.fwd):
            replaced = hook.fn(activation, hook=self)
            if replaced is not None:
                activation = self._checked(replaced, activation)
        hooks = hearing(self.bwd)
        if hooks:
            activation = self._with_gradient_hooks(activation, hooks)
        return activation

    def _checked(self, replaced: Any, activation: Tensor) -> Tensor:
        if not isinstance(replaced, Tensor):
            raise TypeError(
                f"the hook on {self.name!r} returned {type(replaced).__name__}; "
                f"it must return None or a tensor"
            )
        if replaced.shape != activation.shape:
            raise ValueError(
                f"the hook on {self.name!r} returned shape {list(replaced.shape)}; "
                f"the activation is {list(activation.shape)}"
            )
        return replaced

    def _with_gradient_hooks(self, activation: Tensor, hooks: list[Hook]) -> Tensor:
        # A backward hook belongs to the runs made while it is attached, and goes with their graph.
        if not activation.requires_grad:
            raise ValueError(
                f"a backward hook listens to {self.name!r}, but no gradient flows there: "
                f"run with gradients on, and with parameters or inputs that require them"
            )
        activation = activation.clone()  # of a view, a later write in place would drop the hooks
        for hook in hooks:
            activation.register_hook(partial(hook.fn, hook=self))
        return activation

    def layer(self) -> int:
        """The block this point is in, from 0; ValueError outside of the blocks."""
        parts = self.name.split(".")
        if parts[0] != "blocks":
            raise ValueError(f"{self.name!r} is not in a block")
        return int(parts[1])

    def add_hook(
        self,
        fn: HookFn,
        dir: Literal["fwd", "bwd"] = "fwd",
        *,
        is_permanent: bool = False,
        prepend: bool = False,
    ) -> Callable[[], None]:
        """A function that detaches `fn` again; forward hooks see the activation, backward ones
        its gradient."""
        if dir not in ("fwd", "bwd"):
            raise ValueError(f"dir must be 'fwd' or 'bwd', got {dir!r}")
        hooks, hook = (self.fwd if dir == "fwd" else self.bwd), Hook(fn, is_permanent)
        hooks.insert(0 if prepend else len(hooks), hook)
        return partial(_detach, hooks, hook)

    def remove_hooks(
        self, dir: Literal["fwd", "bwd", "both"] = "both", *, including_permanent: bool = False
    ) -> None:
        """Detach the hooks of this point, of one direction or both; its `ctx` stays, and so do
        hooks of a run, which go when it ends."""
        if dir not in ("fwd", "bwd", "both"):
            raise ValueError(f"dir must be 'fwd', 'bwd' or 'both', got {dir!r}")
        for hooks, own in ((self.fwd, "fwd"), (self.bwd, "bwd")):
            for hook in tuple(hooks) if dir in (own, "both") else ():
                if hook.run is None and (including_permanent or not hook.permanent):
                    _detach(hooks, hook)


Place = tuple[list[Hook], Hook]
"The hooks of a point in one direction, and one that is to be among them."


@contextmanager
def one_run() -> Iterator[object]:
    """Within the `with`, this thread is in a run of its own, which hooks can be attached for."""
    run = object()
    outer = _RUN.set(run)
    try:
        yield run
    finally:
        _RUN.reset(outer)


@contextmanager
def attached(places: Sequence[Place]) -> Iterator[None]:
    """Within the `with` these hooks are in their lists; after it these and only these are gone."""
    try:
        for hooks, hook in places:
            hooks.append(hook)
        yield
    finally:
        for hooks, hook in places:
            _detach(hooks, hook)


def hearing(hooks: list[Hook]) -> list[Hook]:
    """Those that hear this run, and that stay the same while one of them attaches or detaches."""
    return [hook for hook in tuple(hooks) if hook.hears]


def _detach(hooks: list[Hook], hook: Hook) -> None:
    with suppress(ValueError):  # it is gone already
        hooks.remove(hook)  # in one step, whatever other threads do meanwhile
