"""Integers as users have them: Python's, NumPy's, those of an array or a tensor."""

from __future__ import annotations

import operator
from typing import Any

import torch


def as_integer(value: Any) -> int | None:
    """Return an integer of any kind as an int; None for what is none, truth values among them."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool:
        return None
    if getattr(value, "ndim", 0) != 0:  # a tensor of one element counts as an index
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def integer(name: str, value: object) -> int:
    """Return an integer of any kind as an int.

    Raises:
        TypeError: it is none.
    """
    number = as_integer(value)
    if number is None:
        raise TypeError(f"{name} is {value!r}; expected an integer")
    return number
