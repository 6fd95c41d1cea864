"""Hooked: a module that knows its hook points by name, and runs with hooks or with a cache."""

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
from circuits.hooks.points import Hook, HookFn, HookPoint, Place, attach, one_run

Names = str | Callable[[str], bool] | Sequence[str]
"A full hook name, a glob such as 'blocks.*.attn.hook_z', a function of a name, or a list of names."
PosSlice = int | slice | tuple[int | None, ...] | list[int] | Int[Tensor, " n"]
"""One position (the dim stays, with size 1), a slice, the arguments of a slice, or several
positions."""

Model = TypeVar("Model")


class Hooked(nn.Module):
    """A model with named hook points. A subclass calls `name_hooks()` when it is built.

    Hooks of `add_hook` and `hooks` belong to the model. While they are attached, they are active in
    every run, of every thread. Hooks of `run_with_hooks` and `run_with_cache` are active in that
    one run alone. They are not active in a run of another thread, nor in a run that a hook begins.
    """

    context_level = 0
    "The number of `with model.hooks(...)` blocks that are open."

    def name_hooks(self) -> None:
        """Give every hook point its name, and list the hook points in `hook_dict`."""
        modules = self.named_modules()
        self.hook_dict = {name: point for name, point in modules if isinstance(point, HookPoint)}
        for name, point in self.hook_dict.items():
            point.name = name

    def _only_when_named(self) -> dict[str, bool]:
        """For every hook point, True if a cache keeps it only when it is named."""
        return {name: point.per_head for name, point in self.hook_dict.items()}

    def hook_names(self, names: Names) -> list[str]:
        """The full names that `names` matches, in model order. KeyError with the nearest names if a
        name or glob matches nothing."""
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
        """Attach a hook until `reset_hooks` removes it. A permanent hook stays even then."""
        for full in self.hook_names(name):
            self.hook_dict[full].add_hook(hook, dir, is_permanent, level, prepend)

    def reset_hooks(
        self,
        clear_contexts: bool = True,
        direction: Literal["fwd", "bwd", "both"] = "both",
        including_permanent: bool = False,
        level: int | None = None,
    ) -> None:
        """Detach the hooks of all points (see HookPoint.remove_hooks). With
        `clear_contexts` also empty the `ctx` of every point. Hooks of a run stay until it ends."""
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
        """Within the `with`, these hooks are attached. After it they are removed, also after an
        exception, and no other hook is. With `clear_contexts` the `ctx` of every point is emptied.
        Without `reset_hooks_end` the hooks stay until `reset_hooks()`."""
        self.context_level += 1
        try:
            places = [*self._places("fwd", fwd_hooks, level=self.context_level),
                      *self._places("bwd", bwd_hooks, level=self.context_level)]  # fmt: skip
            with attach(places, stay=not reset_hooks_end):
                yield self
        finally:
            self.context_level -= 1
            if clear_contexts and reset_hooks_end:
                self.clear_contexts()

    @contextmanager
    def for_one_run(self, fwd_hooks: Sequence[tuple[Names, HookFn]]) -> Iterator[None]:
        """Within the `with`, this thread is in a new run, and these hooks are active in this run
        alone. Other threads and other runs do not notice them."""
        with one_run() as run, attach(self._places("fwd", fwd_hooks, run)):
            yield

    def _places(
        self,
        dir: str,
        hooks: Sequence[tuple[Names, HookFn]],
        run: object | None = None,
        level: int | None = None,
    ) -> list[Place]:
        """A new Hook for every point that a name matches, with the list that the hook belongs
        in."""
        named = [
            (self.hook_dict[name], fn) for names, fn in hooks for name in self.hook_names(names)
        ]
        return [
            (point.hook_lists(dir)[0], Hook(fn, run=run, context_level=level))
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
        """The output of the model, run with these hooks. They are active in this one run; without
        `reset_hooks_end` they stay until `reset_hooks()`. `clear_contexts` is as in `hooks`.

        Backward hooks are called when a result of this run is differentiated, also later.
        ValueError if a forward hook for this run is never called, because the run stops before its
        point, or because no name matches.
        """
        if not reset_hooks_end:
            with self.hooks(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts):
                return self(*args, **kwargs)
        fired: set[str] = set()
        noted = [(names, partial(_note_call, fn, fired)) for names, fn in fwd_hooks]
        try:
            with one_run() as run:
                places = [*self._places("fwd", noted, run), *self._places("bwd", bwd_hooks, run)]
                with attach(places):
                    result = self(*args, **kwargs)
        finally:
            if clear_contexts:
                self.clear_contexts()
        for names, _ in fwd_hooks:
            points = self.hook_names(names)
            if not fired.intersection(points):
                raise ValueError(f"a hook was never called: the run did not reach {points}")
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
        """The output of the model, and a Cache of the activations of the run, detached.

        Without a filter the cache keeps all activations but hook_result and the q/k/v_input, which
        are `n_heads` times the size of the stream. These are computed only if `names_filter`
        matches them. `pos_slice` keeps some positions (for scores and patterns: some destinations).
        """
        asked = None if names_filter is None else self.hook_names(names_filter)
        rare = self._only_when_named()
        everything = (name for name, only_when_named in rare.items() if not only_when_named)
        points = [self.hook_dict[name] for name in (everything if asked is None else asked)]
        kept: dict[str, Tensor] = {}

        def keep(must_copy: bool, activation: Tensor, hook: HookPoint) -> None:
            name = hook.name if hook.cache_name is None or asked is not None else hook.cache_name
            if name in kept:  # ln1 runs once more for each q/k/v_input with a hook
                return
            value = activation.detach()
            if pos_slice is not None:
                value = _select_positions(value, hook.pos_dim, pos_slice)
            elif must_copy:
                value = value.clone()
            kept[name] = value if device is None else value.to(device)

        with one_run() as run:
            record = Hook(partial(keep, self._has_other_hooks()), run=run)
            with attach([(point.fwd_hooks, record) for point in points]):
                result = self(*args, **kwargs)
        cache = Cache(kept, len(getattr(self, "blocks", ())), rare, asked, self)
        return result, cache.remove_batch_dim() if remove_batch_dim else cache

    def to(self: Model, *args: Any, print_details: bool = True, **kwargs: Any) -> Model:
        """The model itself, moved or converted. Nothing is printed; some tools pass
        `print_details`, so it is accepted."""
        return nn.Module.to(self, *args, **kwargs)  # type: ignore[type-var]

    def _has_other_hooks(self) -> bool:
        """True if hooks are active in this run: they may write into an activation."""
        return any(point.has_active_hooks for point in self.hook_dict.values()) or any(
            module._forward_hooks or module._forward_pre_hooks for module in self.modules()
        )


def _note_call(fn: HookFn, fired: set[str], activation: Tensor, hook: HookPoint) -> Any:
    fired.add(hook.name)
    return fn(activation, hook=hook)


def _select_positions(value: Tensor, dim: int, wanted: PosSlice) -> Tensor:
    """A copy of some positions, so that the whole activation can be freed."""
    if isinstance(wanted, tuple):
        wanted = slice(*wanted)
    index = wanted if isinstance(wanted, slice) else torch.atleast_1d(torch.as_tensor(wanted))
    return value[(slice(None),) * dim + (index,)].clone()
