"""HookPoint: the identity function, with a list of hooks that see its activation.

A hook is a function in the list of one point. Without active hooks a point returns its input. A
model asks `point.has_active_hooks` before it computes an activation that only hooks use. A hook can
belong to one run; it is then active in this run alone. A context variable holds the run that a
thread is in.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

HookFn = Callable[..., Tensor | None]
"fn(activation, hook). If it returns a tensor of the same shape, this replaces the activation."

_RUN: ContextVar[object | None] = ContextVar("run", default=None)
"The run_with_hooks or run_with_cache that this thread is in. Of nested runs it is the inner one."


@dataclass(frozen=True, eq=False)
class Hook:
    """An attached function. reset_hooks() keeps a permanent hook. A hook with a `run` is active in
    this run alone. `context_level` is the number of `with model.hooks(...)` blocks around the hook,
    or a number that the caller gave."""

    user_hook: HookFn
    is_permanent: bool = False
    run: object | None = None
    context_level: int | None = None

    @property
    def is_active(self) -> bool:
        """True in the run that the hook belongs to. A hook without a run is always active."""
        return self.run is None or self.run is _RUN.get()


class HookPoint(nn.Module):
    """The identity function. Hooks on it can see and replace an activation.

    `pos_dim` is the dim of the positions. A `shared` activation is used elsewhere too, so hooks get
    a copy. A `per_head` activation is `n_heads` times the size of the stream, so a cache keeps it
    only when it is named. An activation with a `cache_name` is kept under this name, unless the run
    asked for it by its own name (see CACHE_NAMES).
    """

    def __init__(
        self,
        *,
        pos_dim: int = 1,
        shared: bool = False,
        per_head: bool = False,
        cache_name: str | None = None,
    ) -> None:
        super().__init__()
        self.name = ""
        self.pos_dim, self.shared, self.per_head = pos_dim, shared, per_head
        self.cache_name = cache_name
        self.fwd_hooks: list[Hook] = []
        self.bwd_hooks: list[Hook] = []
        self.ctx: dict[str, Any] = {}

    @property
    def has_active_hooks(self) -> bool:
        """True if a hook of this point is active in this run, or if torch has a module hook
        here."""
        return bool(
            (self.fwd_hooks and active_hooks(self.fwd_hooks))
            or (self.bwd_hooks and active_hooks(self.bwd_hooks))
            or self._forward_hooks
            or self._forward_pre_hooks
            or self._backward_hooks
            or self._backward_pre_hooks
        )

    def __call__(self, activation: Tensor) -> Tensor:
        return super().__call__(activation) if self.has_active_hooks else activation

    def forward(self, activation: Tensor) -> Tensor:
        if self.shared:
            activation = activation.clone()
        for hook in active_hooks(self.fwd_hooks):
            replaced = hook.user_hook(activation, hook=self)
            if replaced is not None:
                activation = self._check_replacement(replaced, activation, "activation")
        hooks = active_hooks(self.bwd_hooks)
        if hooks:
            activation = self._with_gradient_hooks(activation, hooks)
        return activation

    def _check_replacement(self, replaced: Any, seen: Tensor, what: str) -> Tensor:
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
        # A backward hook stays with the graph of each run that was made while it was attached.
        if not activation.requires_grad:
            raise ValueError(
                f"there is a backward hook on {self.name!r}, but no gradient flows there: "
                f"run with gradients on, and with parameters or inputs that require them"
            )
        activation = activation.clone()  # a later write in place into a view would drop the hooks
        for hook in hooks:
            activation.register_hook(partial(self._gradient, hook.user_hook))
        return activation

    def _gradient(self, fn: HookFn, gradient: Tensor) -> Tensor | None:
        """The gradient that a backward hook returns. A hook of TransformerLens 2 or 3 returns it in
        a tuple of length 1."""
        replaced: Any = fn(gradient, hook=self)
        if isinstance(replaced, tuple) and len(replaced) == 1:
            replaced = replaced[0]
        return None if replaced is None else self._check_replacement(replaced, gradient, "gradient")

    def layer(self) -> int:
        """The number of the block of this point, from 0. ValueError outside of the blocks."""
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
        """Attach a hook, and return a function that detaches it. A forward hook sees the
        activation, a backward hook its gradient. `remove_hooks` can choose hooks by `level`."""
        if dir not in ("fwd", "bwd"):
            raise ValueError(f"dir must be one of ['fwd', 'bwd'], got {dir!r}")
        (hooks,) = self.hook_lists(dir)
        made = Hook(hook, is_permanent, context_level=level)
        hooks.insert(0 if prepend else len(hooks), made)
        return partial(_detach, hooks, made)

    def add_perma_hook(self, hook: HookFn, dir: Literal["fwd", "bwd"] = "fwd") -> None:
        """Attach a hook that reset_hooks() keeps."""
        self.add_hook(hook, dir, is_permanent=True)

    def has_hooks(
        self,
        dir: Literal["fwd", "bwd", "both"] = "both",
        including_permanent: bool = True,
        level: int | None = None,
    ) -> bool:
        """True if a hook of this direction is attached, and of this level if one is given."""
        return any(
            (including_permanent or not hook.is_permanent) and level in (None, hook.context_level)
            for hooks in self.hook_lists(dir)
            for hook in tuple(hooks)
        )

    def remove_hooks(
        self,
        dir: Literal["fwd", "bwd", "both"] = "fwd",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Detach the hooks of this point, of one direction or both, of one level or all levels.
        With `including_permanent` the hooks of all levels go, also the permanent hooks. `ctx`
        stays. Hooks of a run stay until the run ends."""
        for hooks in self.hook_lists(dir):
            for hook in tuple(hooks):
                chosen = not hook.is_permanent and level in (None, hook.context_level)
                if hook.run is None and (including_permanent or chosen):
                    _detach(hooks, hook)

    def clear_context(self) -> None:
        """Empty the `ctx` of this point."""
        self.ctx.clear()

    def hook_lists(self, dir: str) -> list[list[Hook]]:
        """The list of the hooks of one direction, or the two lists of both directions."""
        fwd, bwd = self.fwd_hooks, self.bwd_hooks
        lists = {"fwd": [fwd], "bwd": [bwd], "both": [fwd, bwd]}
        if dir not in lists:
            raise ValueError(f"dir must be one of {list(lists)}, got {dir!r}")
        return lists[dir]


Place = tuple[list[Hook], Hook]
"The list of hooks of a point in one direction, and a hook to add to this list."


@contextmanager
def one_run() -> Iterator[object]:
    """Within the `with`, this thread is in a new run. Hooks can be attached for this run alone."""
    run = object()
    outer = _RUN.set(run)
    try:
        yield run
    finally:
        _RUN.reset(outer)


@contextmanager
def attach(places: Sequence[Place], stay: bool = False) -> Iterator[None]:
    """Within the `with`, these hooks are in their lists. After it they are removed, and no other
    hook is. With `stay` they are not removed."""
    try:
        for hooks, hook in places:
            hooks.append(hook)
        yield
    finally:
        for hooks, hook in () if stay else places:
            _detach(hooks, hook)


def active_hooks(hooks: list[Hook]) -> list[Hook]:
    """The hooks of a list that are active in this run. The result is a new list, so a hook can
    attach or detach hooks while it runs."""
    return [hook for hook in tuple(hooks) if hook.is_active]


def _detach(hooks: list[Hook], hook: Hook) -> None:
    with suppress(ValueError):  # it was detached before
        hooks.remove(hook)  # one step, so that other threads cannot come between
