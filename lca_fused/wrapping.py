"""What a model knows besides its layers, when another takes it in: hooks, names, its own state."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from lca_fused.evaluation import evaluation_mode

_CALL_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
)
_STATE_HOOKS = (
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)

_CONTENT = ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set")
_START = re.compile(r"(?<![\\[])\^")  # the start of a name, in a pattern


@contextmanager
def same_numbers(model: nn.Module) -> Iterator[None]:
    """Put back the buffers of `model` and the random number generators it draws from."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers() if not _is_lazy(buffer)]
    devices = {tensor.device for tensor in model.parameters() if tensor.is_cuda}
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


@contextmanager
def unchanged_if_it_fails(model: nn.Module) -> Iterator[None]:
    """Put back all of `model` but the numbers in its parameters when the block raises."""
    state = [(module, _copied(vars(module))) for module in model.modules()]
    devices = {tensor.device for tensor in model.parameters() if tensor.is_cuda}
    random_numbers: list[tuple[Callable[[Tensor], None], Tensor]]
    random_numbers = [(torch.set_rng_state, torch.get_rng_state())]
    random_numbers += [(_setter(device), torch.cuda.get_rng_state(device)) for device in devices]
    try:
        yield
    except BaseException:
        for module, attributes in state:
            vars(module).clear()
            vars(module).update(attributes)
        for put_back, before in random_numbers:
            put_back(before)
        raise


def check_hooks(model: nn.Module, backbone: nn.Module, image: Tensor) -> None:
    """Refuse hooks of layers that `model` calls and `backbone`, made of it, does not.

    Raises:
        ValueError: there are such hooks.
    """
    hooked = {m: name for name, m in model.named_modules() if m is not model and _is_hooked(m)}
    if not hooked:
        return
    with evaluation_mode(model), torch.no_grad():
        lost = _called(hooked, model, image) - _called(hooked, backbone, image)
    if lost:
        names = ", ".join(repr(hooked[module]) for module in lost)
        raise ValueError(
            f"{names} of {type(model).__name__} has hooks and is left out, as LCA takes the place "
            "of the pooling and of what follows it; remove the hooks (handle.remove()) and "
            "register them on .lca or .classifier of the result"
        )


def move_hooks(model: nn.Module, backbone: nn.Module, classifier: nn.Module) -> None:
    """Have the hooks of `model` itself act on `classifier`; handles of theirs go on working.

    A `backbone` that does not hold `model` has its names and takes the hooks of its state.
    """
    held = any(module is model for module in backbone.modules())
    for name in (*_CALL_HOOKS, "_is_full_backward_hook"):
        value = getattr(model, name)
        setattr(classifier, name, value)
        if held and isinstance(value, dict):
            setattr(model, name, type(value)())
    for name in () if held else _STATE_HOOKS:
        setattr(backbone, name, getattr(model, name))


def _groups(method: Callable[..., Any], prefix: str, *args: Any, **kwargs: Any) -> Any:
    """Return the groups of timm's `group_matcher` for names that begin with `prefix`."""
    groups = method(*args, **kwargs)
    if callable(groups):  # from a name to its group's number; what follows comes last
        return lambda name: (
            groups(name.removeprefix(prefix)) if name.startswith(prefix) else float("inf")
        )
    return {name: _prefixed(spec, prefix) for name, spec in groups.items()}


def _prefixed(spec: Any, prefix: str) -> Any:
    """Have a pattern, or each of several, match behind `prefix`."""
    if spec is None:
        return None
    if isinstance(spec, str):  # each of "^a|b" is matched from the start, as timm does it
        return f"^{re.escape(prefix)}(?:{_START.sub('', spec)})"
    return [(_prefixed(pattern, prefix), *rest) for pattern, *rest in spec]


def _without_decay(method: Callable[..., Any], prefix: str, *args: Any, **kwargs: Any) -> set[str]:
    return {prefix + name for name in method(*args, **kwargs)}


NAMING: dict[str, Callable[..., Any]] = {
    "group_matcher": _groups,
    "no_weight_decay": _without_decay,
}
"""Methods of timm's models that return names of parameters; each is called with the method itself
and with what those names begin with here."""


def _called(hooked: dict[nn.Module, str], run: nn.Module, image: Tensor) -> set[nn.Module]:
    """Return those that are called while `run` works on an image."""
    called: set[nn.Module] = set()

    def note(module: nn.Module, _inputs: Any) -> None:
        called.add(module)

    with ExitStack() as stack:
        for module in hooked:
            stack.enter_context(module.register_forward_pre_hook(note))
        run.forward(image)  # without hooks of its own
    return called


def _is_hooked(module: nn.Module) -> bool:
    """Whether there are hooks that torch has not put there to make a weight (weight_norm)."""
    return any(
        not type(hook).__module__.startswith("torch.nn.utils.")
        for name in (
            "_forward_pre_hooks",
            "_forward_hooks",
            "_backward_pre_hooks",
            "_backward_hooks",
        )
        for hook in getattr(module, name).values()
    )


def _copied(attributes: dict[str, Any]) -> dict[str, Any]:
    """Copy a module's attributes, and what it keeps modules, parameters and buffers in."""
    return {name: value.copy() if name in _CONTENT else value for name, value in attributes.items()}


def _is_lazy(tensor: Tensor) -> bool:
    return isinstance(tensor, UninitializedTensorMixin)


def _setter(device: torch.device) -> Callable[[Tensor], None]:
    return lambda state: torch.cuda.set_rng_state(state, device)
