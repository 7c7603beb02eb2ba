"""Local-Concepts-Accumulation (LCA) for retail product recognition.

arXiv 2001.03992, "Bag of Tricks for Retail Product Image Classification". Needs torch alone.
"""

from lca_fused.backends.triton_gpu.packed_halves import packed_halves
from lca_fused.concepts import RectangleContributions
from lca_fused.explain import Explanation, explain
from lca_fused.functional import local_concepts_accumulation
from lca_fused.layer import LCA
from lca_fused.loss import MaxEntropyLoss
from lca_fused.models import LCAClassifier, attach_lca

__version__ = "0.1.0"

__all__ = [
    "LCA",
    "Explanation",
    "LCAClassifier",
    "MaxEntropyLoss",
    "RectangleContributions",
    "attach_lca",
    "explain",
    "local_concepts_accumulation",
    "packed_halves",
]
