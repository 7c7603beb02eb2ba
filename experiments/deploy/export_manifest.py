"""What a program must know to use exported files: classes, preprocessing, versions, checksums."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.checksum import sha256
from experiments.console import printable
from lca_fused.classifier import Classifier
from lca_fused.decision import UNKNOWN, Decision
from lca_fused.description import described
from lca_fused.preprocessing import Preprocessing
from lca_fused.pretrained import installed_versions

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_FORMULAS = {
    "max-softmax": "max(softmax(logits))",
    "energy": "log(sum(exp(logits)))",
    "max-logit": "max(logits)",
}


def describe(
    classifier: Classifier,
    files: Mapping[str, Path],
    agreements: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the description of exported files as plain values.

    Args:
        classifier: the classifier that was exported.
        files: the exported file of each format.
        agreements: how close the file of each format is to the model.
    """
    description = described(classifier)
    size = description.preprocessing.image_size
    return {
        "classes": [printable(name) for name in description.classes],
        "input": {
            "name": "images",
            "dtype": "float32",
            "layout": "NCHW",
            "shape": ["batch", 3, size, size],
        },
        "output": {"name": "logits", "shape": ["batch", len(description.classes)]},
        "preprocessing": steps(description.preprocessing),
        "decision": decided(description.decision),
        "model": {
            name: value
            for name, value in description.to_dict().items()
            if name not in ("classes", "decision")
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
        "versions": installed_versions(*_PACKAGES),
    }


def decided(decision: Decision) -> dict[str, Any]:
    """Return what becomes of logits: probabilities, and whether the likeliest class is named."""
    return decision.to_dict() | {
        "of": "logits in float32; of 8-bit files, which differ a little, nothing is proven",
        "probabilities": "softmax(logits / temperature)",
        "accepted": f"{_FORMULAS[decision.score]} > threshold; {UNKNOWN} where it is not; all "
        "where threshold is null",
    }


def steps(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return what a photo goes through, step by step, before it is the network's input."""
    side = preprocessing.resized_side
    resize = {"resize_shorter_side": side} if preprocessing.keep_ratio else {"resize": [side, side]}
    return {
        "color": "RGB, upright as its EXIF orientation says, transparency on white",
        "shrink_shorter_side_to_at_most": preprocessing.kept_side,
        **resize,
        "interpolation": preprocessing.interpolation,
        "antialias": True,
        "center_crop": preprocessing.image_size,
        "scale": 1 / 255,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
    }
