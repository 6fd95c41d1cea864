"""HookPoint, an identity one can listen to, and Hooked, the model root that attaches and detaches.

There is no other mechanism and no global state: a hook is a function in the list of one point. A
point that nobody listens to returns its input untouched; models ask `point.listening` before they
compute what only a listener would see.
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from circuits.cache import Cache, act_name

HookFn = Callable[..., Tensor | None]
"fn(activation, hook): None leaves the activation, a tensor of the same shape replaces it."
Names = str | Callable[[str], bool] | Sequence[str]
"A full hook name, a glob such as 'blocks.*.attn.hook_z', a predicate on names, or several names."


class Hook(NamedTuple):
    """One attached function; permanent ones outlive reset_hooks()."""

    fn: HookFn
    permanent: bool = False


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
        """True when anything is attached here: our hooks, or torch's own module hooks."""
        return bool(
            self.fwd
            or self.bwd
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
        for hook in tuple(self.fwd):
            replaced = hook.fn(activation, hook=self)
            if replaced is not None:
                activation = self._checked(replaced, activation)
        if self.bwd and activation.is_floating_point():
            activation = self._with_gradient_hooks(activation)
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

    def _with_gradient_hooks(self, activation: Tensor) -> Tensor:
        # A backward hook belongs to the runs made while it is attached, and goes with their graph.
        if not activation.requires_grad:
            raise ValueError(
                f"a backward hook listens to {self.name!r}, but no gradient flows there: "
                f"run with gradients on, and with parameters or inputs that require them"
            )
        activation = activation.view_as(activation)
        for hook in tuple(self.bwd):
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

    def remove_hooks(self, *, including_permanent: bool = False) -> None:
        """Detach every hook of this point, and empty its `ctx`."""
        for hooks in (self.fwd, self.bwd):
            hooks[:] = [] if including_permanent else [hook for hook in hooks if hook.permanent]
        self.ctx.clear()


class Hooked(nn.Module):
    """A model with named hook points. A subclass calls `name_hooks()` when it is built."""

    def name_hooks(self) -> None:
        """Give every hook point the name of its place, and list them in `hook_dict`."""
        modules = self.named_modules()
        self.hook_dict = {name: point for name, point in modules if isinstance(point, HookPoint)}
        for name, point in self.hook_dict.items():
            point.name = name
        self._only_when_named = {name: point.per_head for name, point in self.hook_dict.items()}

    def hook_names(self, names: Names) -> list[str]:
        """Full names that a name, glob, predicate or list of names stands for, in model order.

        KeyError if a name or glob finds nothing, with the nearest names.
        """
        if callable(names):
            return [name for name in self.hook_dict if names(name)]
        if not isinstance(names, str):
            found = {match for name in names for match in self.hook_names(name)}
            return [name for name in self.hook_dict if name in found]
        exact = act_name(names)
        if exact in self.hook_dict:
            return [exact]
        found = [name for name in self.hook_dict if fnmatchcase(name, names)]
        if not found:
            near = difflib.get_close_matches(exact, self.hook_dict, 3)
            hint = f"the nearest are {near}" if near else f"the model has {list(self.hook_dict)}"
            raise KeyError(f"no hook point matches {names!r}; {hint}")
        return found

    def add_hook(
        self,
        name: Names,
        hook: HookFn,
        dir: Literal["fwd", "bwd"] = "fwd",
        *,
        is_permanent: bool = False,
        prepend: bool = False,
    ) -> None:
        """Attach a hook until `reset_hooks` takes it off; permanent ones stay even then."""
        for full in self.hook_names(name):
            point = self.hook_dict[full]
            point.add_hook(hook, dir, is_permanent=is_permanent, prepend=prepend)

    def reset_hooks(self, *, including_permanent: bool = False) -> None:
        """Detach all hooks that are not permanent (or all), whoever attached them."""
        for point in self.hook_dict.values():
            point.remove_hooks(including_permanent=including_permanent)

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Sequence[tuple[Names, HookFn]] = (),
        bwd_hooks: Sequence[tuple[Names, HookFn]] = (),
    ) -> Iterator["Hooked"]:
        """Within the `with`, these hooks are attached; after it, also after an exception, these
        and only these are gone."""
        detach: list[Callable[[], None]] = []
        try:
            for dir, pairs in (("fwd", fwd_hooks), ("bwd", bwd_hooks)):
                for names, fn in pairs:
                    points = [self.hook_dict[name] for name in self.hook_names(names)]
                    detach += [point.add_hook(fn, dir) for point in points]  # type: ignore[arg-type]
            yield self
        finally:
            for undo in detach:
                undo()

    def run_with_hooks(
        self,
        *args: Any,
        fwd_hooks: Sequence[tuple[Names, HookFn]] = (),
        bwd_hooks: Sequence[tuple[Names, HookFn]] = (),
        **kwargs: Any,
    ) -> Any:
        """What the model returns with these hooks attached for this one run.

        ValueError if one of them was never called, because the run stopped before it, or its
        predicate matches nothing. Backward hooks fire when a result of this run is differentiated,
        also later.
        """
        fired: set[str] = set()
        noted = [(names, partial(_noted, fn, fired)) for names, fn in fwd_hooks]
        with self.hooks(noted, bwd_hooks):
            result = self(*args, **kwargs)
        for names, _ in fwd_hooks:
            points = self.hook_names(names)
            if not fired.intersection(points):
                raise ValueError(f"a hook was never called: the run did not come past {points}")
        return result

    def run_with_cache(
        self,
        *args: Any,
        names_filter: Names | None = None,
        remove_batch_dim: bool = False,
        device: torch.device | str | None = None,
        pos_slice: int | slice | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, Cache]:
        """What the model returns, and a Cache of the activations it met, detached.

        Without a filter all are kept except those with `n_heads` times the stream (hook_result,
        q/k/v_input): name them, or match them by a glob or predicate, and they are computed.
        `pos_slice` keeps some positions (destinations, for scores and patterns).
        """
        asked = None if names_filter is None else self.hook_names(names_filter)
        everything = (name for name, per_head in self._only_when_named.items() if not per_head)
        points = [self.hook_dict[name] for name in (everything if asked is None else asked)]
        others = any(point.listening for point in self.hook_dict.values())
        kept: dict[str, Tensor] = {}

        def keep(activation: Tensor, hook: HookPoint) -> None:
            if hook.name in kept:  # ln1 runs once more for each listened q/k/v_input
                return
            value = activation.detach()
            if pos_slice is not None:
                value = _positions(value, hook.pos_dim, pos_slice)
            elif others:  # somebody may write into it after us
                value = value.clone()
            kept[hook.name] = value if device is None else value.to(device)

        record = Hook(keep)
        try:
            for point in points:
                point.fwd.append(record)
            result = self(*args, **kwargs)
        finally:
            for point in points:
                _detach(point.fwd, record)
        cache = Cache(kept, len(getattr(self, "blocks", ())), self._only_when_named, asked, self)
        return result, cache.remove_batch_dim() if remove_batch_dim else cache


def _noted(fn: HookFn, fired: set[str], activation: Tensor, hook: HookPoint) -> Any:
    fired.add(hook.name)
    return fn(activation, hook=hook)


def _detach(hooks: list[Hook], hook: Hook) -> None:
    for i, attached in enumerate(hooks):
        if attached is hook:
            del hooks[i]
            return


def _positions(value: Tensor, dim: int, wanted: int | slice | Sequence[int]) -> Tensor:
    """A copy, so that the whole activation can be freed."""
    index = wanted if isinstance(wanted, int | slice) else list(wanted)
    return value[(slice(None),) * dim + (index,)].clone()
