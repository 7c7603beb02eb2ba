"""Weights inside what trainers write around them: nested dictionaries and longer names."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

logger = logging.getLogger(__name__)

_COMPILED = "_orig_mod."  # torch.compile puts it before the names of what it compiles
_AVERAGED = frozenset({"ema", "averaged", "teacher"})
_DEEPEST = 4


@dataclass(frozen=True)
class _Found:
    """A dictionary in a file whose keys, less a prefix, are names of a network's tensors.

    Attributes:
        place: keys of the nested dictionaries that lead to it.
        content: the dictionary, less what torch.compile puts into its keys.
        prefix: what its keys begin with before the names of tensors, or "".
        matching: number of keys that are names of the network's tensors.
        compiled: whether torch.compile's part of the keys was taken out.
    """

    place: tuple[str, ...]
    content: Mapping[str, Any]
    prefix: str
    matching: int
    compiled: bool

    @property
    def rank(self) -> tuple[int, bool, int]:
        """The best has the highest; of several that fit as well, the averaged weights."""
        words = set(re.split(r"[._]", ".".join([*self.place, self.prefix]).lower()))
        return self.matching, bool(words & _AVERAGED), -len(self.place)

    def __str__(self) -> str:
        place = "".join(f"[{key!r}]" for key in self.place) or "the file itself"
        without = [repr(part) for part in (self.prefix, _COMPILED * self.compiled) if part]
        return f"{place}, names without {' and '.join(without)}" if without else place


def unwrap(content: Mapping[Any, Any], expected: Collection[str], source: str) -> dict[str, Any]:
    """Return a network's state dict from what a file holds.

    It may be nested ({"state_dict": ...}, {"model": {"ema": ...}}), and its names may be longer by
    what wraps the network ("module.", "_orig_mod.", "model.", "backbone."). Of several that fit,
    averaged weights (EMA) are taken, as they are what is evaluated. What was taken is logged.

    Args:
        content: what the file holds.
        expected: names of the network's tensors.
        source: where the content is from, for the log.

    Returns:
        The tensors under their names in the network; `content` itself where nothing in it fits.
    """
    every = list(_candidates(content, frozenset(expected)))
    best = max(every, key=lambda found: found.rank, default=None)
    if best is None:
        return dict(content)
    state = {
        key.removeprefix(best.prefix): value
        for key, value in best.content.items()
        if key.startswith(best.prefix)
        and (isinstance(value, Tensor) or key.removeprefix(best.prefix) in expected)
    }
    if best.place or best.prefix or best.compiled:
        others = [str(found) for found in every if found.matching == best.matching]
        others.remove(str(best))
        instead = f"; not {'; nor '.join(others)}" if others else ""
        logger.info("weights of %s: %s%s", source, best, instead)
    return state


def _candidates(
    content: Mapping[Any, Any], expected: frozenset[str], place: tuple[str, ...] = ()
) -> Iterator[_Found]:
    """Yield what fits in a dictionary and in those inside it, with each prefix that fits best."""
    content = {key: value for key, value in content.items() if isinstance(key, str)}
    named = {key.replace(_COMPILED, ""): value for key, value in content.items()}
    counts: Counter[str] = Counter()
    for key in named:
        counts.update(prefix for prefix in _prefixes(key) if key[len(prefix) :] in expected)
    most = max(counts.values(), default=0)
    compiled = named.keys() != content.keys()
    for prefix in (prefix for prefix in counts if counts[prefix] == most):
        yield _Found(place, named, prefix, most, compiled)
    if len(place) < _DEEPEST:
        for key, value in content.items():
            if isinstance(value, Mapping):
                yield from _candidates(value, expected, (*place, str(key)))


def _prefixes(key: str) -> Iterator[str]:
    """Yield "", "a.", "a.b." for "a.b.weight"."""
    yield ""
    yield from (key[: dot.end()] for dot in re.finditer(r"\.", key))
