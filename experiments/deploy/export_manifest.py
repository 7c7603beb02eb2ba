"""What a program must know to use exported files: classes, preprocessing, versions, checksums."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments.checksum import sha256
from experiments.console import printable
from experiments.data.augment import resized_side
from experiments.deploy.inference import stored_side
from experiments.networks.checkpoint import LoadedClassifier

_PACKAGES = (
    "lca-fused",
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "safetensors",
)


def describe(
    classifier: LoadedClassifier,
    files: Mapping[str, Path],
    agreements: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the description of exported files as plain values.

    Args:
        classifier: that was exported.
        files: by format.
        agreements: by format, how close each is to the model.
    """
    return {
        "classes": list(map(printable, classifier.classes)),
        "input": {
            "name": "images",
            "dtype": "float32",
            "layout": "NCHW",
            "shape": ["batch", 3, classifier.recipe.image_size, classifier.recipe.image_size],
        },
        "output": {"name": "logits", "shape": ["batch", len(classifier.classes)]},
        "preprocessing": preprocessing(classifier),
        "model": {
            name: printable(value) if isinstance(value, str) else value
            for name, value in classifier.settings.items()
        },
        "files": {
            name: {
                "file": path.name,
                "bytes": path.stat().st_size,
                "sha256": sha256(path),
                "agreement": dict(agreements[name]),
            }
            for name, path in files.items()
        },
        "versions": _versions(),
    }


def preprocessing(classifier: LoadedClassifier) -> dict[str, Any]:
    """Return what a photo goes through, step by step, before it is the network's input."""
    size = classifier.recipe.image_size
    return {
        "color": "RGB, upright as its EXIF orientation says, transparency on white",
        "shrink_shorter_side_to_at_most": stored_side(size),
        "resize_shorter_side": resized_side(size, classifier.recipe.augmentation.center_crop),
        "interpolation": "bilinear",
        "antialias": True,
        "center_crop": size,
        "scale": 1 / 255,
        "mean": list(classifier.normalization.mean),
        "std": list(classifier.normalization.std),
    }


def _versions() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    installed = {name: version for name in _PACKAGES if (version := _version(name)) is not None}
    return {"python": platform.python_version()} | installed


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
