"""SuperPoint's network, in transformers' implementation, with weights of any of their layouts."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.matching.superpoint_weights import (
    HOW_TO_GIVE_WEIGHTS,
    import_transformers,
    read_state,
)
from experiments.networks.weights import WeightsError

logger = logging.getLogger(__name__)

_CELL = 8  # pixels a cell of the feature map is wide
_COUNTER = "num_batches_tracked"

_MAGIC_LEAP_LICENCE = (
    "SuperPoint weights of Magic Leap, or a conversion of them: their licence allows "
    "non-commercial research only"
)
_RETRAINED_LICENCE = "SuperPoint weights of github.com/rpautrat/SuperPoint: MIT licence"


@dataclass(frozen=True)
class Layout:
    """How a file of SuperPoint weights names the layers of the network.

    Attributes:
        layers: name in transformers of each layer, by its name in the file.
        retrained: whether each convolution is followed by batch normalisation, as in the MIT
            retraining.
        licence: licence of the weights, in a sentence.
    """

    layers: dict[str, str]
    retrained: bool
    licence: str


_NETWORK_LAYERS = (
    *(f"encoder.conv_blocks.{block}.conv_{half}" for block in range(4) for half in "ab"),
    *(f"keypoint_decoder.conv_score_{half}" for half in "ab"),
    *(f"descriptor_decoder.conv_descriptor_{half}" for half in "ab"),
)


def _layout(file_layers: list[str], retrained: bool, licence: str) -> Layout:
    return Layout(dict(zip(file_layers, _NETWORK_LAYERS, strict=True)), retrained, licence)


LAYOUTS = {
    "Magic Leap": _layout(
        [f"conv{block}{half}" for block in "1234PD" for half in "ab"],
        retrained=False,
        licence=_MAGIC_LEAP_LICENCE,
    ),
    "retrained": _layout(
        [f"backbone.{block}.{half}" for block in range(4) for half in range(2)]
        + [f"{decoder}.{half}" for decoder in ("detector", "descriptor") for half in range(2)],
        retrained=True,
        licence=_RETRAINED_LICENCE,
    ),
    "transformers": _layout(list(_NETWORK_LAYERS), retrained=False, licence=_MAGIC_LEAP_LICENCE),
}
"""The files that are accepted: superpoint_v1.pth, superpoint_v6_from_tf.pth, a transformers one."""


_NAMES = [
    f"{layer}.{tensor}"
    for layout in LAYOUTS.values()
    for layer in layout.layers
    for tensor in (("conv.weight", "conv.bias") if layout.retrained else ("weight", "bias"))
]


def load_network(file: Path, *, threshold: float, nms_radius: int) -> nn.Module:
    """Build transformers' SuperPoint with the weights in `file`, ready for inference.

    No code in the file is run. The licence of its weights is logged, once per process.

    Args:
        file: weights in any of `LAYOUTS`, written by torch.save or as safetensors.
        threshold: probability above which a pixel is a keypoint.
        nms_radius: radius in pixels around a keypoint in which no weaker one is kept.

    Returns:
        A `SuperPointForKeypointDetection` in eval mode that keeps every keypoint.

    Raises:
        WeightsError: transformers is not installed, or the file does not hold the weights of
            SuperPoint; the keys that do not fit are named.
    """
    transformers = import_transformers()
    state = read_state(file, _NAMES)
    layout = _recognise(state, file)
    config = transformers.SuperPointConfig(
        keypoint_threshold=threshold, nms_radius=nms_radius, max_keypoints=-1
    )
    with torch.random.fork_rng(devices=[]):  # its first weights are random, and then replaced
        network: nn.Module = transformers.SuperPointForKeypointDetection(config)
    if layout.retrained:
        _follow_the_retraining(network)
    _load(network, state, layout, file)
    _log_licence(layout.licence)
    return network.float().eval().requires_grad_(False)


def _recognise(state: dict[str, Tensor], file: Path) -> Layout:
    def known_keys(layout: Layout) -> int:
        return sum(key.startswith(tuple(f"{layer}." for layer in layout.layers)) for key in state)

    layout = max(LAYOUTS.values(), key=known_keys)
    if known_keys(layout) == 0:
        raise WeightsError(
            f"{file} does not hold weights of SuperPoint: it has keys such as "
            f"{', '.join(list(state)[:3]) or 'none'}, expected conv1a.weight (Magic Leap), "
            "backbone.0.0.conv.weight (rpautrat) or encoder.conv_blocks.0.conv_a.weight "
            f"(transformers); {HOW_TO_GIVE_WEIGHTS}"
        )
    return layout


def _load(network: nn.Module, state: dict[str, Tensor], layout: Layout, file: Path) -> None:
    """Load `state` strictly; what does not fit is named as the file names it."""
    named_in_network = {
        f"{theirs}{key.removeprefix(ours)}": key
        for key in network.state_dict()
        for theirs, ours in layout.layers.items()
        if key.startswith(f"{ours}.") and not key.endswith(_COUNTER)
    }
    shapes = {key: network.state_dict()[ours].shape for key, ours in named_in_network.items()}
    problems = {
        "missing": sorted(shapes.keys() - state.keys()),
        "unexpected": sorted(state.keys() - shapes.keys()),
        "of another shape": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(shape)}"
            for key, shape in shapes.items()
            if key in state and state[key].shape != shape
        ],
    }
    described = [f"{kind}: {', '.join(keys)}" for kind, keys in problems.items() if keys]
    if described:
        raise WeightsError(
            f"{file} does not hold weights of SuperPoint ({'; '.join(described)}); "
            f"{HOW_TO_GIVE_WEIGHTS}"
        )
    network.load_state_dict({named_in_network[key]: value for key, value in state.items()})


def _follow_the_retraining(network: Any) -> None:
    """Change transformers' network into the one that superpoint_v6_from_tf.pth is of.

    There every convolution is followed by ReLU and then batch normalisation, the last of each
    decoder by batch normalisation alone, and descriptors are sampled at the pixels' centres.
    """
    for block in network.encoder.conv_blocks:
        block.conv_a, block.conv_b = _normalised(block.conv_a), _normalised(block.conv_b)
        block.relu = nn.Identity()
    scores, descriptors = network.keypoint_decoder, network.descriptor_decoder
    scores.conv_score_a = _normalised(scores.conv_score_a)
    scores.conv_score_b = _normalised(scores.conv_score_b, activation=False)
    scores.relu = nn.Identity()
    descriptors.conv_descriptor_a = _normalised(descriptors.conv_descriptor_a)
    descriptors.conv_descriptor_b = _normalised(descriptors.conv_descriptor_b, activation=False)
    descriptors.relu = nn.Identity()
    descriptors._sample_descriptors = _sample_at_pixel_centres


def _normalised(convolution: nn.Conv2d, *, activation: bool = True) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=convolution)
    if activation:
        layers["activation"] = nn.ReLU()
    layers["bn"] = nn.BatchNorm2d(convolution.out_channels, eps=1e-3)  # TensorFlow's epsilon
    return nn.Sequential(layers)


def _sample_at_pixel_centres(points: Tensor, descriptors: Tensor, cell: int = _CELL) -> Tensor:
    """Interpolate (1, D, h, w) descriptors at (..., K, 2) positions (x, y): (1, D, K), unit norm.

    transformers' own sampling follows Magic Leap's, which stretches the map by up to half a cell.
    """
    size = points.new_tensor([descriptors.shape[3], descriptors.shape[2]]) * cell
    grid = (points + 0.5) / size * 2 - 1
    sampled = F.grid_sample(descriptors, grid.view(1, 1, -1, 2), align_corners=False)
    return F.normalize(sampled.flatten(2), dim=1)


@cache
def _log_licence(licence: str) -> None:
    logger.warning("%s", licence)
