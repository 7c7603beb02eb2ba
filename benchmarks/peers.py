"""What is measured side by side; what cannot run says why.

To add a head, write a function that takes a `Problem` and returns a `Head`, and give it a line in
`PEERS`.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from benchmarks.four_corners import FourCorners
from benchmarks.heads import Head
from benchmarks.memory import available_bytes
from benchmarks.problem import Problem
from lca_fused import LCA
from lca_fused.backends import choose
from lca_fused.heads import RMAC, GeM
from reference.lca import lca_reference

# Compiled code is unrolled over kernel sizes; beyond this the compiler needs many minutes.
_COMPILED_POSITIONS = 64
# Tensors of R rows per image that the reference holds at its peak, forward and backward.
_REFERENCE_COPIES = 6


class UnavailableError(Exception):
    """A peer that cannot run here, and why."""


@dataclass(frozen=True)
class Peer:
    """A row of the tables.

    Attributes:
        title: its name in the tables.
        build: a function that makes its head for a problem, or raises UnavailableError.
        is_lca: whether it computes LCA; only those run at the shapes that price a rectangle.
        compiled: whether its first call takes long.
        devices: the device types whose tables have the row.
    """

    title: str
    build: Callable[[Problem], Head]
    is_lca: bool = False
    compiled: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")


def projection(problem: Problem) -> Head:
    """F.linear on the rows that LCA projects, which are laid out for it beforehand."""
    c, d = problem.shape.c, problem.shape.d
    linear = _with_weights(nn.Linear(c, d, device="meta"), problem)
    return Head(linear, problem.rows, is_lca=False)


def lca(backend: str) -> Callable[[Problem], Head]:
    """The library's layer with one of its backends."""

    def build(problem: Problem) -> Head:
        try:
            chosen = choose(backend, problem.x)
        except (KeyError, ValueError) as error:
            reason = error if isinstance(error, ValueError) else f"no backend named {error}"
            raise UnavailableError(str(reason)) from error
        layer = LCA(problem.shape.c, problem.shape.d, backend=backend, device="meta")
        return Head(_with_weights(layer, problem), problem.x, is_lca=True, backend=chosen)

    return build


def reference(problem: Problem) -> Head:
    """The paper, literally."""
    shape = problem.shape
    needed = shape.n * shape.rectangles * max(shape.c, shape.d) * problem.x.element_size()
    available = available_bytes(problem.x.device)
    if needed * _REFERENCE_COPIES > available:
        raise UnavailableError(
            f"the reference needs about {needed * _REFERENCE_COPIES / 1e9:.0f} GB, "
            f"{available / 1e9:.0f} GB are free"
        )
    return Head(_with_weights(_Reference(), problem), problem.x, is_lca=True)


def four_corners(problem: Problem) -> Head:
    """Every rectangle from four corners of a 2D integral image of the projection."""
    return Head(_with_weights(FourCorners(), problem), problem.x, is_lca=True)


def compiled(build: Callable[[Problem], Head]) -> Callable[[Problem], Head]:
    """The same head under torch.compile, for one shape."""

    def build_compiled(problem: Problem) -> Head:
        _check_compiler(problem)
        head = build(problem)
        torch.compiler.reset()
        return Head(_Compiled(head.module), head.input, head.is_lca, head.backend)

    return build_compiled


def average(problem: Problem) -> Head:
    """Global average pooling."""
    return Head(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), problem.x, is_lca=False)


def average_fc(problem: Problem) -> Head:
    """Global average pooling, then LCA's own FC and ReLU."""
    linear = _with_weights(nn.Linear(problem.shape.c, problem.shape.d, device="meta"), problem)
    layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear, nn.ReLU())
    return Head(layers, problem.x, is_lca=False)


def gem(problem: Problem) -> Head:
    """Generalised mean, arXiv 1711.02512."""
    return Head(GeM(problem.x.shape[1]).to(problem.x), problem.x, is_lca=False)


def rmac(problem: Problem) -> Head:
    """Regional maximum activations, arXiv 1511.05879, without its whitening."""
    return Head(RMAC(problem.x.shape[1], scale=1.0), problem.x, is_lca=False)


def timm_attention(problem: Problem) -> Head:
    """Attention pooling as in CLIP's convnets."""
    layers = _import("timm.layers")
    shape = problem.shape
    torch.manual_seed(0)
    pool = layers.AttentionPool2d(
        shape.c, feat_size=(shape.height, shape.width), out_features=shape.d
    )
    return Head(pool.to(problem.x.device, problem.x.dtype), problem.x, is_lca=False)


FLOOR = "floor"
PEERS: dict[str, Peer] = {
    FLOOR: Peer("projection alone (the floor)", projection, is_lca=True),
    "lca": Peer("**LCA**", lca("auto"), is_lca=True),
    "lca-triton": Peer("LCA, triton backend", lca("triton"), is_lca=True, devices=("cuda",)),
    "lca-numba": Peer("LCA, numba backend", lca("numba"), is_lca=True, devices=("cpu",)),
    "lca-eager": Peer("LCA, eager backend", lca("eager"), is_lca=True),
    "lca-eager-compiled": Peer(
        "LCA, eager backend, torch.compile", compiled(lca("eager")), is_lca=True, compiled=True
    ),
    "four-corners": Peer("LCA, 2D integral image, four corners", four_corners, is_lca=True),
    "reference": Peer("LCA as the paper states it", reference),
    "reference-compiled": Peer(
        "LCA as the paper states it, torch.compile", compiled(reference), compiled=True
    ),
    "gap": Peer("global average pooling", average),
    "gap-fc": Peer("global average pooling + FC + ReLU", average_fc),
    "gem": Peer("GeM", gem),
    "rmac": Peer("R-MAC", rmac),
    "timm-attention": Peer("attention pooling (timm)", timm_attention),
}
"""Peers by name, in the order of the tables."""


class _Reference(nn.Module):
    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return lca_reference(x, self.weight, self.bias)


class _Compiled(nn.Module):
    """Names the parameters as the module inside does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for name, parameter in module.named_parameters():
            self.register_parameter(name, parameter)
        self._call = [torch.compile(module, fullgraph=True, dynamic=False)]

    def forward(self, x: Tensor) -> Tensor:
        return self._call[0](x)


def _with_weights(module: nn.Module, problem: Problem) -> nn.Module:
    module.weight = nn.Parameter(problem.weight)
    module.bias = nn.Parameter(problem.bias)
    return module


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UnavailableError(f"the package {package} is not installed") from error


def _check_compiler(problem: Problem) -> None:
    positions = problem.shape.height * problem.shape.width
    if positions > _COMPILED_POSITIONS:
        raise UnavailableError(
            f"torch.compile takes many minutes for {positions} positions; "
            f"it is measured up to {_COMPILED_POSITIONS}"
        )
    compilers = (os.environ.get("CXX", ""), "g++", "clang++", "cl")
    if problem.x.device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise UnavailableError("torch.compile needs a C++ compiler, and none was found")
