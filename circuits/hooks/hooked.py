"""Hooked, the model root: it knows its hook points by name, and runs with hooks or a cache."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from circuits.hooks.cache import Cache, act_name
from circuits.hooks.points import Hook, HookFn, HookPoint, Place, attached, one_run

Names = str | Callable[[str], bool] | Sequence[str]
"A full hook name, a glob such as 'blocks.*.attn.hook_z', a predicate on names, or several names."
PosSlice = int | slice | tuple[int | None, ...] | list[int] | Int[Tensor, " n"]
"One position, which leaves a dim of size 1; a slice, or a tuple that it is made of; or several."

Model = TypeVar("Model")


class Hooked(nn.Module):
    """A model with named hook points. A subclass calls `name_hooks()` when it is built.

    Hooks of `add_hook` and `hooks` are the model's: while they are attached they hear every run, of
    every thread. Those of `run_with_hooks` and `run_with_cache` hear that one run alone: not what
    another thread runs meanwhile, nor another such run that a hook begins.
    """

    context_level = 0
    "How many `with model.hooks(...)` are around what happens now."

    def name_hooks(self) -> None:
        """Give every hook point the name of its place, and list them in `hook_dict`."""
        modules = self.named_modules()
        self.hook_dict = {name: point for name, point in modules if isinstance(point, HookPoint)}
        for name, point in self.hook_dict.items():
            point.name = name

    def _only_when_named(self) -> dict[str, bool]:
        """Of every hook point, whether a cache keeps it only when it is named."""
        return {name: point.per_head for name, point in self.hook_dict.items()}

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
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """Attach a hook until `reset_hooks` takes it off; permanent ones stay even then."""
        for full in self.hook_names(name):
            self.hook_dict[full].add_hook(hook, dir, is_permanent, level, prepend)

    def reset_hooks(
        self,
        clear_contexts: bool = True,
        direction: Literal["fwd", "bwd", "both"] = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Detach all hooks that are not permanent (or all, or those of one level), whoever attached
        them, and empty the `ctx` of every point. Hooks of runs in progress stay until these end."""
        for point in self.hook_dict.values():
            point.remove_hooks(direction, including_permanent, level)
        if clear_contexts:
            self.clear_contexts()

    def clear_contexts(self) -> None:
        """Empty the `ctx` of every hook point."""
        for point in self.hook_dict.values():
            point.clear_context()

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Sequence[tuple[Names, HookFn]] = (),
        bwd_hooks: Sequence[tuple[Names, HookFn]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator["Hooked"]:
        """Within the `with`, these hooks are attached; after it, also after an exception, these
        and only these are gone, and with `clear_contexts` the `ctx` of every point is empty;
        without `reset_hooks_end` they stay until `reset_hooks()`."""
        self.context_level += 1
        try:
            places = [*self._places("fwd", fwd_hooks, level=self.context_level),
                      *self._places("bwd", bwd_hooks, level=self.context_level)]  # fmt: skip
            with attached(places, stay=not reset_hooks_end):
                yield self
        finally:
            self.context_level -= 1
            if clear_contexts and reset_hooks_end:
                self.clear_contexts()

    @contextmanager
    def for_one_run(self, fwd_hooks: Sequence[tuple[Names, HookFn]]) -> Iterator[None]:
        """Within the `with` this thread is in a run of its own, which these hooks hear alone: for
        our own runs, which other threads and other runs must not notice."""
        with one_run() as run, attached(self._places("fwd", fwd_hooks, run)):
            yield

    def _places(
        self,
        dir: str,
        hooks: Sequence[tuple[Names, HookFn]],
        run: object | None = None,
        level: int | None = None,
    ) -> list[Place]:
        """A hook of its own, and the list that it is for, at every point that is named."""
        named = [
            (self.hook_dict[name], fn) for names, fn in hooks for name in self.hook_names(names)
        ]
        return [
            (point.fwd if dir == "fwd" else point.bwd, Hook(fn, run=run, level=level))
            for point, fn in named
        ]

    def run_with_hooks(
        self,
        *args: Any,
        fwd_hooks: Sequence[tuple[Names, HookFn]] = (),
        bwd_hooks: Sequence[tuple[Names, HookFn]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **kwargs: Any,
    ) -> Any:
        """What the model returns with these hooks attached for this one run; or, without
        `reset_hooks_end`, until `reset_hooks()`. `clear_contexts` is as in `hooks`.

        ValueError if one that is for this run was never called, because the run stopped before it,
        or its predicate matches nothing. Backward hooks fire when a result of this run is
        differentiated, also later.
        """
        if not reset_hooks_end:
            with self.hooks(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts):
                return self(*args, **kwargs)
        fired: set[str] = set()
        noted = [(names, partial(_noted, fn, fired)) for names, fn in fwd_hooks]
        try:
            with one_run() as run:
                places = [*self._places("fwd", noted, run), *self._places("bwd", bwd_hooks, run)]
                with attached(places):
                    result = self(*args, **kwargs)
        finally:
            if clear_contexts:
                self.clear_contexts()
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
        pos_slice: PosSlice | None = None,
        **kwargs: Any,
    ) -> tuple[Any, Cache]:
        """What the model returns, and a Cache of the activations it met, detached.

        Without a filter all are kept except those with `n_heads` times the stream (hook_result,
        q/k/v_input): name them, or match them by a glob or predicate, and they are computed.
        `pos_slice` keeps some positions (destinations, for scores and patterns).
        """
        asked = None if names_filter is None else self.hook_names(names_filter)
        rare = self._only_when_named()
        everything = (name for name, only_when_named in rare.items() if not only_when_named)
        points = [self.hook_dict[name] for name in (everything if asked is None else asked)]
        kept: dict[str, Tensor] = {}

        def keep(activation: Tensor, hook: HookPoint) -> None:
            name = hook.name if hook.aside is None or asked is not None else hook.aside
            if name in kept:  # ln1 runs once more for each listened q/k/v_input
                return
            value = activation.detach()
            if pos_slice is not None:
                value = _positions(value, hook.pos_dim, pos_slice)
            elif others:  # somebody may write into it after us
                value = value.clone()
            kept[name] = value if device is None else value.to(device)

        with one_run() as run:
            others = self._edited()
            record = Hook(keep, run=run)
            with attached([(point.fwd, record) for point in points]):
                result = self(*args, **kwargs)
        cache = Cache(kept, len(getattr(self, "blocks", ())), rare, asked, self)
        return result, cache.remove_batch_dim() if remove_batch_dim else cache

    def to(self: Model, *args: Any, print_details: bool = True, **kwargs: Any) -> Model:
        """The model itself, moved or converted. `print_details` is there for tools that give it:
        nothing is printed."""
        return nn.Module.to(self, *args, **kwargs)  # type: ignore[type-var]

    def _edited(self) -> bool:
        """True when somebody listens to this run who may write into what passes."""
        return any(point.listening for point in self.hook_dict.values()) or any(
            module._forward_hooks or module._forward_pre_hooks for module in self.modules()
        )


def _noted(fn: HookFn, fired: set[str], activation: Tensor, hook: HookPoint) -> Any:
    fired.add(hook.name)
    return fn(activation, hook=hook)


def _positions(value: Tensor, dim: int, wanted: PosSlice) -> Tensor:
    """A copy, so that the whole activation can be freed."""
    if isinstance(wanted, tuple):
        wanted = slice(*wanted)
    index = wanted if isinstance(wanted, slice) else torch.atleast_1d(torch.as_tensor(wanted))
    return value[(slice(None),) * dim + (index,)].clone()
