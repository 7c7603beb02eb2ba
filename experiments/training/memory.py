"""Backing off: fewer photos at a time where the device's memory does not hold them all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from experiments.training.distributed import CommonError, in_any_process

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Where torch raises a plain RuntimeError: the CPU, MPS, and what cuBLAS and cuDNN take themselves.
_SAYS_SO = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


class NoRoomError(CommonError):
    """The device's memory does not even hold the computation of one photo."""


class WorkerKilledError(ValueError):
    """A process that loads photos was killed; the message says what to do."""


@contextmanager
def killed_workers_explained() -> Iterator[None]:
    """Make one line of what torch raises, wherever the program is then, as a worker is killed.

    Raises:
        WorkerKilledError: a process that loads photos was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise WorkerKilledError(
            "a process that loads photos was killed, as happens where memory runs out; use fewer "
            "--workers"
        ) from error


class Room:
    """How many photos the device's memory holds at a time: all, until it runs out.

    Args:
        most: number of photos at a time to begin with; None for all of a batch.
        doing: the computation, for the message.
        note: what becomes of the results, for the message.

    Attributes:
        most: number of photos at a time, as far as is known; None for all of a batch.
    """

    def __init__(self, most: int | None, doing: str, note: str = "") -> None:
        self.most = most
        self._doing = doing
        self._note = note

    def within(self, photos: int, compute: Callable[[int], T]) -> T:
        """Return `compute(photos at a time)`, with half as many for as long as memory runs out.

        Several processes that compute together all go on with half as many where it runs out in
        one of them, so `compute` must not wait for another process.

        Args:
            photos: number of photos of the batch, the same in all processes.
            compute: may be called again, and then starts anew.

        Raises:
            NoRoomError: one photo is too many, in this or another process.
        """
        asked = at_once = min(photos, self.most or photos)
        while True:
            result, problem = _attempt(compute, at_once)
            if not in_any_process(bool(problem)):
                break
            _release()
            if at_once == 1:
                raise NoRoomError(problem or "another process has no memory left")
            at_once = self.most = -(-at_once // 2)
        if at_once < asked:
            logger.info(
                "memory ran out: %s takes %d photos at a time from now on rather than %d%s",
                self._doing,
                at_once,
                asked,
                self._note,
            )
        return result  # type: ignore[return-value]


def in_batches(compute: Callable[[Tensor], Tensor], images: Tensor, room: Room) -> Tensor:
    """Return what `compute` makes of images (N, ...), of as many at a time as there is room for."""
    return room.within(
        len(images), lambda at_once: torch.cat([compute(some) for some in images.split(at_once)])
    )


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAYS_SO)


def _attempt(compute: Callable[[int], T], at_once: int) -> tuple[T | None, str]:
    """Return what was computed, or why memory did not hold it; no tensor of that is left."""
    try:
        return compute(at_once), ""
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        return None, str(error) or "the machine has no memory left"


def _release() -> None:
    """Give back what torch keeps for the next tensors of the same sizes."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
