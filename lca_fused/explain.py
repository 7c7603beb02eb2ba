"""Exact explanations: a logit over LCA as a sum over positions, and over rectangles.

With G the projection (N, H, W, D), w the classifier's weights of one class and b its bias,

    logit = b + sum over positions p of (M[p] * G[p]) . w
          = b + sum over rectangles r of relu(mean of G over r) . w / R

M, the gate map, is the gradient of rectangle pooling, which is linear in G between the places
where a rectangle's ReLU opens or closes, with no constant: so each sum is the logit itself, not an
approximation of it.

Of a gallery the logit is scale * cosine; w is scale times the most alike vector of the class, over
the length of the photo's own embedding, and b is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lca_fused.backends.eager import rectangle_pooling
from lca_fused.backends.projection import project
from lca_fused.concepts import RectangleContributions, contributions_of
from lca_fused.evaluation import evaluation_mode
from lca_fused.integers import as_integer
from lca_fused.layer import LCA
from lca_fused.observation import Observation, observe
from lca_fused.rectangles import KernelSizes, num_rectangles, resolve_kernel_sizes
from lca_fused.scores import Scorer, Scores, parameters_of, scores_of

_DTYPES = (torch.float32, torch.float64)
_TOLERANCE = 1e-4  # relative to the terms a logit is made of; enough for TensorFloat-32


@dataclass(frozen=True, eq=False)
class Explanation:
    """What every position, and on demand every rectangle, adds to one logit of each image.

    Attributes:
        logits: the logits of all classes, (N, K).
        target: the class explained, (N,) int64.
        bias: the classifier's bias of that class, which no position has a share in, (N,); 0 of a
            gallery.
        positions: what each position of the map adds to that class's logit, (N, H, W); summed
            they are the logit less the bias.
        input_size: (height, width) of the images, in pixels.
        kernel_sizes: the (kh, kw) of the rectangles.
    """

    logits: Tensor
    target: Tensor
    bias: Tensor
    positions: Tensor
    input_size: tuple[int, int]
    kernel_sizes: KernelSizes = field(repr=False)
    _projection: Tensor = field(repr=False)
    _class_weight: Tensor = field(repr=False)

    def __len__(self) -> int:
        return self.target.shape[0]

    @property
    def map_size(self) -> tuple[int, int]:
        """(H, W) of the feature map."""
        return self.positions.shape[1], self.positions.shape[2]

    @property
    def num_rectangles(self) -> int:
        """R, the rectangles of one map."""
        return num_rectangles(*self.map_size, self.kernel_sizes)

    @property
    def target_logits(self) -> Tensor:
        """The logits explained, (N,)."""
        return self.logits.gather(1, self.target[:, None]).squeeze(1)

    def rectangles(self, index: int) -> RectangleContributions:
        """Return what every rectangle of one image adds to its logit.

        Summed the contributions are the logit less the bias. Takes R * D steps and memory in
        proportion to R: 735 rectangles at 7x7, 2.5 million at 56x56.

        Args:
            index: the image's index in the batch; negative ones count from the end.

        Raises:
            IndexError: there is no such image.
        """
        self._check_index(index)
        with torch.autocast(self._projection.device.type, enabled=False):
            return contributions_of(
                self._projection[index],
                self._class_weight[index],
                self.kernel_sizes,
                self.input_size,
            )

    def top_rectangles(
        self, index: int, k: int, max_overlap: float = 0.1
    ) -> RectangleContributions:
        """Return the top local concepts of one image: the rectangles that add most to its logit.

        `RectangleContributions.top_rectangles` of all its rectangles, which says how they are
        chosen and what is refused.

        Raises:
            IndexError: there is no such image.
        """
        return self.rectangles(index).top_rectangles(k, max_overlap)

    def _check_index(self, index: int) -> None:
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"index is {index}; expected that of one of the {len(self)} images explained"
            )


def explain(
    model: nn.Module,
    images: Tensor,
    target: int | Sequence[int] | Tensor | None = None,
    *,
    lca: LCA | None = None,
    classifier: Scorer | None = None,
    dtype: torch.dtype = torch.float32,
) -> Explanation:
    """Take class logits apart: exactly what each position and each rectangle of the map adds.

    For models in which a linear classifier or a `Gallery` stands directly behind LCA (dropout
    between them does nothing here), wherever in the model they are: `Classifier`, an
    nn.Sequential, a class of your own. The model is run once, in evaluation mode and without
    autocast, and is left as it was: modes, gradients and hooks. That its logits are what is
    explained is checked with numbers.

    LCA and the classifier are computed once more in `dtype` from the model's own feature map, with
    torch operators whatever the layer's backend, and the sums agree with `logits` to the rounding
    of `dtype` (of a gallery, whose cosines are float32, to that of float32), given torch's default
    precision of float32 matrix products.

    Args:
        model: the classifier; compiled and data-parallel ones are explained by what they wrap.
        images: (N, 3, height, width), floating point, scaled and normalised as for training, on
            the model's device.
        target: the class to explain: one for all images, or (N,) integers, one per image; None
            for the one with the largest logit.
        lca: the LCA layer, where the model has several.
        classifier: the linear layer or gallery, where several follow LCA or its logits are not
            what the model returns.
        dtype: the dtype of the explanation, float32 or float64.

    Returns:
        The explanation, on the model's device.

    Raises:
        ValueError: there is not exactly one LCA layer or linear classifier behind it and none is
            given; something between or after them changes the logits; images of another shape or
            device; a class out of range; numbers that are not finite; a dtype not listed.
        TypeError: an argument of another type, or a model that returns something else than logits.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype is {dtype}; expected torch.float32 or torch.float64")
    with torch.inference_mode(mode=False), torch.no_grad():
        seen = observe(model, images, lca, classifier)
        # Parameters that are computed (spectral_norm) change when they are read in training mode.
        with torch.autocast(images.device.type, enabled=False), evaluation_mode(model):
            return _explanation(seen, target, (images.shape[2], images.shape[3]), dtype)


def _explanation(
    seen: Observation,
    target: int | Sequence[int] | Tensor | None,
    input_size: tuple[int, int],
    dtype: torch.dtype,
) -> Explanation:
    layer, classifier = seen.lca, seen.classifier
    height, width = seen.feature_map.shape[2:]
    kernel_sizes = resolve_kernel_sizes(height, width, layer.kernel_sizes)
    projection = project(seen.feature_map.to(dtype), *parameters_of(layer, dtype))  # (N, H, W, D)
    with torch.enable_grad():
        leaf = projection.detach().requires_grad_()
        pooled = rectangle_pooling(leaf, kernel_sizes)  # (N, D)
    scores = scores_of(classifier, pooled.detach())
    logits = scores.logits
    _check_logits(logits, seen, scores)

    classes = _classes(target, logits)
    class_weight, bias = scores.towards(classes)  # (N, D), (N,)
    (gated_weight,) = torch.autograd.grad(pooled, leaf, class_weight)  # M * w, (N, H, W, D)
    return Explanation(
        logits=logits,
        target=classes,
        bias=bias,
        positions=(gated_weight * projection).sum(dim=3),
        input_size=input_size,
        kernel_sizes=kernel_sizes,
        _projection=projection,
        _class_weight=class_weight,
    )


def _check_logits(logits: Tensor, seen: Observation, scores: Scores) -> None:
    """Raise ValueError unless `logits` are what the model returned, but for rounding."""
    allowed = max(_TOLERANCE, 8 * seen.resolution) * scores.terms
    difference = (logits - seen.logits.to(logits.dtype)).abs()
    if not (difference <= allowed).all():
        raise ValueError(
            f"what the model returns differs by up to {difference.max():.3g} from the linear "
            "classifier on the output of LCA, so something between or behind them changes it (an "
            "activation, a normalisation, a softmax, a hook); only a linear classifier directly "
            "behind LCA can be explained. If something follows the classifier, pass the "
            "classifier as classifier= to explain its own output"
        )


def _classes(target: int | Sequence[int] | Tensor | None, logits: Tensor) -> Tensor:
    """Return the class to explain of each image, (N,) int64 on the device of `logits`."""
    n, classes = logits.shape
    if target is None:
        return logits.argmax(dim=1)
    index = as_integer(target)
    if index is not None:
        chosen = torch.full((n,), index, device=logits.device)
    elif hasattr(target, "__len__") and not isinstance(target, str):
        target = torch.as_tensor(target)
        if target.dtype == torch.bool or target.is_floating_point() or target.is_complex():
            raise TypeError(f"target has dtype {target.dtype}; expected integer class indices")
        if target.shape != (n,):
            raise ValueError(
                f"target has shape {tuple(target.shape)}; expected ({n},), one class per image"
            )
        chosen = target.to(logits.device, torch.int64)
    else:
        raise TypeError(
            f"target is a {type(target).__name__}; expected a class index, a tensor of them, or "
            "None for the class with the largest logit"
        )
    if n and (chosen.min() < 0 or chosen.max() >= classes):
        raise ValueError(
            f"target holds class indices {int(chosen.min())}..{int(chosen.max())}; expected "
            f"0..{classes - 1} for {classes} logits"
        )
    return chosen
