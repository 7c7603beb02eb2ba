"""One run of a model, and what passed its LCA layer and the linear classifier behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lca_fused.evaluation import evaluation_mode
from lca_fused.gallery import Gallery
from lca_fused.layer import LCA
from lca_fused.scores import Scorer

_STANCE = threading.Lock()
_stances = ExitStack()
_in_eager = 0  # threads


@dataclass(frozen=True)
class Observation:
    """What was seen while a model ran.

    Attributes:
        lca: the LCA layer.
        classifier: the linear layer or gallery behind it.
        feature_map: what went into `lca`, (N, C, H, W).
        logits: what `classifier` is said to have made of it, (N, K): the output of the model, or
            that of a classifier the caller named. Nothing here has checked that it did.
        resolution: relative distance of neighbouring numbers in the coarsest dtype on the way.
    """

    lca: LCA
    classifier: Scorer
    feature_map: Tensor
    logits: Tensor
    resolution: float


@dataclass(frozen=True)
class _Call:
    module: nn.Module
    input: Any
    output: Any


def observe(
    model: nn.Module, images: Tensor, lca: LCA | None, classifier: Scorer | None
) -> Observation:
    """Run `model` on `images` in evaluation mode, without autocast, and note what its head did.

    Modes are restored and hooks removed, whatever happens. Compiled models are run without their
    compiler, which would pass over the hooks.

    Raises:
        ValueError: images of another shape, device or not finite; no LCA layer, several of them,
            or one that is not called exactly once; no linear layer is called behind it, or
            several; `lca` or `classifier` is not part of the model; the logits are not finite.
        TypeError: arguments of another type; the model returns something other than (N, K).
    """
    model = _unwrapped(model)
    layer = _layer(model, lca)
    _check_classifier(model, classifier)
    _check_images(model, images)

    output, calls = _run(model, images, layer)
    first, behind = _split(calls, layer)
    last = _classification(model, behind, classifier)
    logits = output if classifier is None else last.output
    _check_logits(logits, images.shape[0], last.module.out_features)
    return Observation(
        layer,
        last.module,
        first.input,
        logits,
        max(_resolution(t) for t in (first.input, first.output, last.output, logits)),
    )


def _run(model: nn.Module, images: Tensor, layer: LCA) -> tuple[Any, list[_Call]]:
    """Return the output, and the calls of `layer` and of every linear layer from then on."""
    calls: list[_Call] = []
    thread = threading.get_ident()

    # Other threads that run the model call it too, and without `kwargs` just before it is gone.
    def note(module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        if threading.get_ident() == thread and (module is layer or calls):
            kwargs, out = rest
            calls.append(_Call(module, _kept((*args, *kwargs.values())[0]), _kept(out)))

    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(torch.autocast(images.device.type, enabled=False))
        stack.enter_context(_without_compiler(model))
        for module in model.modules():
            if module is layer or isinstance(module, nn.Linear | Gallery):
                stack.enter_context(module.register_forward_hook(note, with_kwargs=True))
        output = model(images)
    return output, calls


def _kept(value: Any) -> Any:
    """Return a tensor as it is now: the model may go on and change it in place."""
    return value.clone() if isinstance(value, Tensor) else value


def _split(calls: list[_Call], layer: LCA) -> tuple[_Call, list[_Call]]:
    """Return the call of LCA and those of the linear layers behind it."""
    own = [call for call in calls if call.module is layer]
    if not own:
        raise ValueError(
            "the LCA layer was not called when the model ran; if a part of the model is wrapped "
            "(torch.compile, torch.jit), pass the model without the wrapper"
        )
    if len(own) > 1:
        raise ValueError(
            f"the LCA layer was called {len(own)} times in one run of the model; expected once, "
            "as a logit is then no sum over the rectangles of one map"
        )
    return own[0], [call for call in calls if call.module is not layer]


def _classification(model: nn.Module, behind: list[_Call], classifier: Scorer | None) -> Any:
    """Return the one call, among those behind LCA, of the linear classifier."""
    candidates = [call for call in behind if classifier is None or call.module is classifier]
    if not candidates:
        missing = "no nn.Linear was" if classifier is None else "the classifier given was not"
        raise ValueError(
            f"{missing} called behind the LCA layer; expected a linear classifier directly behind "
            "LCA, such as attach_lca(model, num_classes=K) makes"
        )
    if len(candidates) > 1:
        names = _names(model, [call.module for call in candidates])
        raise ValueError(
            f"linear layers were called {len(candidates)} times behind the LCA layer ({names}); "
            "expected once: pass the one directly behind it as classifier="
        )
    return candidates[0]


def _layer(model: nn.Module, lca: LCA | None) -> LCA:
    layers = [module for module in model.modules() if isinstance(module, LCA)]
    if lca is not None:
        if not isinstance(lca, LCA):
            raise TypeError(f"lca is a {type(lca).__name__}; expected the lca_fused.LCA to explain")
        if not any(layer is lca for layer in layers):
            raise ValueError("lca is no part of model; pass a layer out of model.modules()")
        return lca
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no LCA layer, and only a score over LCA is a sum over "
            "rectangles; attach_lca(model, num_classes=K) makes a model that can be explained "
            "once it is trained"
        )
    if len(layers) > 1:
        raise ValueError(
            f"the model has {len(layers)} LCA layers ({_names(model, layers)}); pass one as lca="
        )
    return layers[0]


def _check_classifier(model: nn.Module, classifier: Scorer | None) -> None:
    if classifier is None:
        return
    if not isinstance(classifier, nn.Linear | Gallery):
        raise TypeError(
            f"classifier is a {type(classifier).__name__}; expected an nn.Linear or a Gallery"
        )
    if not any(module is classifier for module in model.modules()):
        raise ValueError("classifier is no part of model; pass a layer out of model.modules()")


def _check_images(model: nn.Module, images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(f"images is a {type(images).__name__}; expected a torch.Tensor")
    if not images.is_floating_point():
        raise TypeError(
            f"images has dtype {images.dtype}; expected floating-point images, scaled and "
            "normalised as for training"
        )
    if images.dim() != 4:
        raise ValueError(
            f"images has shape {tuple(images.shape)}; expected (N, 3, H, W), for one image "
            "images[None]"
        )
    parameter = next(model.parameters())
    if images.device != parameter.device:
        raise ValueError(
            f"images is on {images.device} and the model on {parameter.device}; move them to one "
            f"device, e.g. images.to({str(parameter.device)!r})"
        )
    _check_finite("images", images)


def _check_logits(logits: object, images: int, classes: int) -> None:
    if not isinstance(logits, Tensor) or logits.shape != (images, classes):
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(
            f"the model returns {given} where its classifier has {classes} outputs; expected the "
            f"logits ({images}, {classes}). To explain the logits of a linear layer inside the "
            "model pass it as classifier="
        )
    _check_finite("the model's logits", logits)


def _check_finite(name: str, tensor: Tensor) -> None:
    finite = tensor.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        images = (~finite).nonzero().flatten().tolist()
        raise ValueError(
            f"{name} of the batch's items {images[:10]}{', ...' if len(images) > 10 else ''} are "
            "not finite; look for NaN and infinity in the photos and in the model's parameters"
        )


def _names(model: nn.Module, modules: Iterable[nn.Module]) -> str:
    named = {id(module): name for name, module in model.named_modules()}
    return ", ".join(repr(named[id(module)]) for module in modules)


def _resolution(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).eps


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside torch.compile and data parallel."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected an nn.Module")
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _without_compiler(model: nn.Module) -> AbstractContextManager[Any]:
    """Have compiled parts of `model` run as they were written."""
    compiled = any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
    return _forced_eager() if compiled else nullcontext()


@contextmanager
def _forced_eager() -> Iterator[None]:
    """Take the stance "force_eager", which all threads share, until the last one leaves."""
    global _in_eager
    with _STANCE:
        if not _in_eager:
            _stances.enter_context(torch.compiler.set_stance("force_eager"))
        _in_eager += 1
    try:
        yield
    finally:
        with _STANCE:
            _in_eager -= 1
            if not _in_eager:
                _stances.close()
