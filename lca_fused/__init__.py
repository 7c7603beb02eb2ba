"""Local-Concepts-Accumulation (LCA) for retail product recognition.

arXiv 2001.03992, "Bag of Tricks for Retail Product Image Classification". Needs torch alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lca_fused.backends.triton_gpu.packed_halves import packed_halves
from lca_fused.classifier import Classifier, attach_head, attach_lca
from lca_fused.concepts import RectangleContributions
from lca_fused.explain import Explanation, explain
from lca_fused.feature_map import feature_map
from lca_fused.functional import local_concepts_accumulation
from lca_fused.gallery import Gallery
from lca_fused.layer import LCA
from lca_fused.loss import MaxEntropyLoss

if TYPE_CHECKING:
    from lca_fused.pretrained import load_classifier

__version__ = "0.2.0"

__all__ = [
    "LCA",
    "Classifier",
    "Explanation",
    "Gallery",
    "MaxEntropyLoss",
    "RectangleContributions",
    "attach_head",
    "attach_lca",
    "explain",
    "feature_map",
    "load_classifier",
    "local_concepts_accumulation",
    "packed_halves",
]


def __getattr__(name: str) -> Any:
    # What needs packages beside torch is imported when it is asked for.
    if name == "load_classifier":
        try:
            from lca_fused.pretrained import load_classifier
        except ImportError as error:
            raise ImportError(
                f'{error}; pip install "lca-fused[models]" brings what stored classifiers need'
            ) from error
        return load_classifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
