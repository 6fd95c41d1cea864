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
    """One attached function; permanent ones outlive reset_hooks(), those of a run hear it alone.
    `level` is how many `with model.hooks(...)` were around it, or a number of the caller's own."""

    fn: HookFn
    permanent: bool = False
    run: object | None = None
    level: int | None = None

    # The names that TransformerLens gives these.
    user_hook = property(lambda self: self.fn)
    is_permanent = property(lambda self: self.permanent)
    context_level = property(lambda self: self.level)

    @property
    def hears(self) -> bool:
        """True in the run that it was attached for; always, if that is none."""
        return self.run is None or self.run is _RUN.get()


class HookPoint(nn.Module):
    """The identity, where functions can see and replace an activation.

    `pos_dim` is where positions lie; `shared` marks an input that is used elsewhere too, so that
    listeners get a copy of their own; `per_head` marks a value that is `n_heads` times the
    size of the stream and is cached only when it is named. `aside` is the name by which a cache
    keeps it that nobody named: other tools would take its own name for a part of the stream.
    """

    def __init__(
        self,
        *,
        pos_dim: int = 1,
        shared: bool = False,
        per_head: bool = False,
        aside: str | None = None,
    ) -> None:
        super().__init__()
        self.name = ""
        self.pos_dim, self.shared, self.per_head, self.aside = pos_dim, shared, per_head, aside
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

    @property
    def fwd_hooks(self) -> list[Hook]:
        """What is attached here and sees the activation."""
        return self.fwd

    @property
    def bwd_hooks(self) -> list[Hook]:
        """What is attached here and sees the gradient."""
        return self.bwd

    def __call__(self, activation: Tensor) -> Tensor:
        return super().__call__(activation) if self.listening else activation

    def forward(self, activation: Tensor) -> Tensor:
        if self.shared:
            activation = activation.clone()
        for hook in hearing(self.fwd):
            replaced = hook.fn(activation, hook=self)
            if replaced is not None:
                activation = self._checked(replaced, activation, "activation")
        hooks = hearing(self.bwd)
        if hooks:
            activation = self._with_gradient_hooks(activation, hooks)
        return activation

    def _checked(self, replaced: Any, seen: Tensor, what: str) -> Tensor:
        if not isinstance(replaced, Tensor):
            raise TypeError(
                f"the hook on {self.name!r} returned {type(replaced).__name__}; "
                f"it must return None or a tensor"
            )
        if replaced.shape != seen.shape:
            raise ValueError(
                f"the hook on {self.name!r} returned shape {list(replaced.shape)}; "
                f"the {what} is {list(seen.shape)}"
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
            activation.register_hook(partial(self._gradient, hook.fn))
        return activation

    def _gradient(self, fn: HookFn, gradient: Tensor) -> Tensor | None:
        """What a backward hook makes of it; TransformerLens 2 and 3 had it in a tuple of one."""
        replaced: Any = fn(gradient, hook=self)
        if isinstance(replaced, tuple) and len(replaced) == 1:
            replaced = replaced[0]
        return None if replaced is None else self._checked(replaced, gradient, "gradient")

    def layer(self) -> int:
        """The block this point is in, from 0; ValueError outside of the blocks."""
        parts = self.name.split(".")
        if parts[0] != "blocks":
            raise ValueError(f"{self.name!r} is not in a block")
        return int(parts[1])

    def add_hook(
        self,
        hook: HookFn,
        dir: Literal["fwd", "bwd"] = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> Callable[[], None]:
        """A function that detaches `hook` again; forward hooks see the activation, backward ones
        its gradient. `level` is a number by which `remove_hooks` finds it."""
        (hooks,) = self._lists(dir, both=False)
        made = Hook(hook, is_permanent, level=level)
        hooks.insert(0 if prepend else len(hooks), made)
        return partial(_detach, hooks, made)

    def add_perma_hook(self, hook: HookFn, dir: Literal["fwd", "bwd"] = "fwd") -> None:
        """Attach a hook that outlives reset_hooks()."""
        self.add_hook(hook, dir, is_permanent=True)

    def has_hooks(
        self,
        dir: Literal["fwd", "bwd", "both"] = "both",
        including_permanent: bool = True,
        level: int | None = None,
    ) -> bool:
        """True when a hook of this direction is attached, and of this level if one is given."""
        return any(
            (including_permanent or not hook.permanent) and level in (None, hook.level)
            for hooks in self._lists(dir)
            for hook in tuple(hooks)
        )

    def remove_hooks(
        self,
        dir: Literal["fwd", "bwd", "both"] = "fwd",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Detach the hooks of this point, of one direction or both, of all levels or one, or all of
        them with the permanent ones; its `ctx` stays, and so do hooks of a run, which go when it
        ends."""
        for hooks in self._lists(dir):
            for hook in tuple(hooks):
                if hook.run is None and (
                    including_permanent or (not hook.permanent and level in (None, hook.level))
                ):
                    _detach(hooks, hook)

    def clear_context(self) -> None:
        """Empty the `ctx` of this point."""
        self.ctx.clear()

    def _lists(self, dir: str, both: bool = True) -> list[list[Hook]]:
        lists = {"fwd": [self.fwd], "bwd": [self.bwd]}
        lists |= {"both": [self.fwd, self.bwd]} if both else {}
        if dir not in lists:
            raise ValueError(f"dir must be one of {list(lists)}, got {dir!r}")
        return lists[dir]


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
def attached(places: Sequence[Place], stay: bool = False) -> Iterator[None]:
    """Within the `with` these hooks are in their lists; after it these and only these are gone, if
    they are not to stay."""
    try:
        for hooks, hook in places:
            hooks.append(hook)
        yield
    finally:
        for hooks, hook in () if stay else places:
            _detach(hooks, hook)


def hearing(hooks: list[Hook]) -> list[Hook]:
    """Those that hear this run, and that stay the same while one of them attaches or detaches."""
    return [hook for hook in tuple(hooks) if hook.hears]


def _detach(hooks: list[Hook], hook: Hook) -> None:
    with suppress(ValueError):  # it is gone already
        hooks.remove(hook)  # in one step, whatever other threads do meanwhile
