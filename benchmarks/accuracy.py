"""The check every row must pass before it is measured.

Implementations of LCA are held against the plain reference in float64. Output (n, d) depends on
image n and feature d alone, so some images and features stand for all of them: the gradient that
is sent back is zero elsewhere, and so must be what comes out elsewhere. Other heads, and the
floor, are held against themselves in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.heads import Head
from benchmarks.problem import Problem
from reference.lca import lca_reference

_TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}
# Powers, roots and softmax amplify rounding; these heads are checked against blunders.
_OTHER_HEADS = {torch.float32: 2e-5, torch.float64: 1e-10}
# Problems beyond this size are projected before they are pooled, the same in exact arithmetic.
_LITERAL_BYTES = 512 << 20


class WrongResultError(AssertionError):
    """A head whose result is wrong; its time means nothing.

    Attributes:
        errors: the relative error of every result, right or wrong.
    """

    def __init__(self, message: str, errors: Mapping[str, float]) -> None:
        super().__init__(message)
        self.errors = dict(errors)


class Oracle:
    """Expected results of LCA for one problem, computed once for all its implementations."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._known: dict[tuple[torch.dtype, bool], dict[str, Tensor]] = {}

    def results(self, dtype: torch.dtype, training: bool) -> dict[str, Tensor]:
        """Output, and gradients where training, of the checked images and features in `dtype`."""
        if (dtype, training) not in self._known:
            self._known[dtype, training] = _reference_results(self._problem, dtype, training)
        return self._known[dtype, training]

    def tolerance(self, training: bool) -> dict[str, float]:
        """Largest relative error of each result; 16 bit: twice that of torch operators."""
        exact = self.results(torch.float64, training)
        dtype = self._problem.x.dtype
        if dtype in _TOLERANCE:
            return dict.fromkeys(exact, _TOLERANCE[dtype])
        plain = self.results(dtype, training)
        return {name: 2 * relative_error(plain[name], exact[name]) for name in exact}


def check(head: Head, oracle: Oracle, problem: Problem, training: bool) -> dict[str, float]:
    """Return the relative errors of a head's output and, where training, gradients.

    Raises:
        WrongResultError: one of them is larger than it may be.
    """
    if head.is_lca:
        errors = _lca_errors(head, oracle, problem, training)
        tolerance = oracle.tolerance(training)
    else:
        errors = _own_errors(head, training)
        dtype = head.input.dtype
        bound = _OTHER_HEADS.get(dtype, 8 * torch.finfo(dtype).eps)
        tolerance = dict.fromkeys(errors, bound)
    refuse(errors, tolerance)
    return errors


def refuse(errors: Mapping[str, float], tolerance: Mapping[str, float]) -> None:
    """Raise WrongResultError if an error, or NaN, is not within its tolerance."""
    wrong = [
        f"{name}: {error:.2e} > {tolerance[name]:.2e}"
        for name, error in errors.items()
        if not error <= tolerance[name]
    ]
    if wrong:
        raise WrongResultError("relative error against float64: " + ", ".join(wrong), errors)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """‖actual - expected‖ / ‖expected‖ in float64, or ‖actual‖ where `expected` is zero."""
    norm = expected.double().norm().item()
    return (actual.double() - expected.double()).norm().item() / (norm or 1.0)


def _reference_results(problem: Problem, dtype: torch.dtype, training: bool) -> dict[str, Tensor]:
    x = problem.x[problem.images].to(dtype).contiguous()
    weight, bias = (t[problem.features].to(dtype) for t in (problem.weight, problem.bias))
    leaves = {"x": x, "weight": weight, "bias": bias}
    literal_bytes = x.shape[0] * x.shape[1] * 8 * problem.shape.rectangles
    function = lca_reference if literal_bytes <= _LITERAL_BYTES else _project_first
    with torch.set_grad_enabled(training):
        output = function(**{name: leaf.requires_grad_(training) for name, leaf in leaves.items()})
    results = {"output": output.detach()}
    if training:
        gradient = random_gradient(output)
        gradients = torch.autograd.grad(output, list(leaves.values()), gradient)
        results |= dict(zip(leaves, gradients, strict=True))
    return results


def _project_first(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    projection = F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)
    identity = torch.eye(weight.shape[0], dtype=x.dtype, device=x.device)
    return lca_reference(projection, identity)


def _lca_errors(head: Head, oracle: Oracle, problem: Problem, training: bool) -> dict[str, float]:
    expected = oracle.results(torch.float64, training)
    images, features = problem.images, problem.features
    with torch.set_grad_enabled(training):
        output = head()
    checked = output.detach()[images][:, features]
    errors = {"output": relative_error(checked, expected["output"])}
    if training:
        gradient = torch.zeros_like(output)
        gradient[images[:, None], features] = random_gradient(checked)
        gradients = dict(zip(head.leaves, head.gradients(output, gradient), strict=True))
        kept = {"x": images, "weight": features, "bias": features}
        for name, indices in kept.items():
            everywhere = torch.zeros_like(gradients[name], dtype=torch.float64)
            everywhere[indices] = expected[name].double()
            errors[name] = relative_error(gradients[name], everywhere)
    return errors


def _own_errors(head: Head, training: bool) -> dict[str, float]:
    """Errors of the first and last image (for the floor: rows), all features."""
    kept = torch.tensor([0, head.input.shape[0] - 1], device=head.input.device).unique()
    exact = Head(_double(head.module), head.input.detach()[kept].double(), is_lca=False)
    with torch.set_grad_enabled(training):
        output, expected = head(), exact()
    errors = {"output": relative_error(output.detach()[kept], expected.detach())}
    if training:
        gradient = torch.zeros_like(output)
        gradient[kept] = random_gradient(expected).to(gradient.dtype)
        actual = head.gradients(output, gradient)
        wanted = list(exact.gradients(expected, gradient[kept].double()))
        wanted[0] = torch.zeros_like(actual[0], dtype=torch.float64).index_copy(0, kept, wanted[0])
        named = zip(head.leaves, actual, wanted, strict=True)
        errors |= {name: relative_error(mine, exactly) for name, mine, exactly in named}
    return errors


def random_gradient(output: Tensor) -> Tensor:
    """Return a gradient for `output`, the same for every dtype up to its rounding to 8 bits."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(-4, 5, output.shape, generator=generator).to(output)


def _double(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).double()
