"""Several processes, started by torchrun, that run the same program and train together.

    torchrun --nproc-per-node 2 experiments/run_all.py grocery-store --data-root DIR

Whatever reads or writes results, and whatever is decided by what is there, is the first process's
alone (`on_first`): the others wait for what came of it, so that all of them go the same way.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")

INTERRUPTED = 130
"""Exit status of a program that Ctrl-C ended."""

_LONGEST_WAIT = timedelta(days=7)  # for the first process, while it matches or scores photos

_store: Any = None  # what the processes know of each other by
_first_alone = False


class CommonError(RuntimeError):
    """An error that all processes raise together: none of them waits for another."""


def size() -> int:
    """Return how many processes share the work of whoever asks: 1 within `on_first`."""
    together = dist.is_available() and dist.is_initialized() and not _first_alone
    return dist.get_world_size() if together else 1


def rank() -> int:
    """Return which of them this one is, from 0."""
    return dist.get_rank() if size() > 1 else 0


def processes_here() -> int:
    """Return how many processes torchrun started on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def number_here() -> int:
    """Return which of the processes on this machine this one is, from 0: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def run_together(main: Callable[P, int]) -> Callable[P, int]:
    """Decorate a program that torchrun may start several processes of; only the first is heard.

    Args:
        main: the program; returns its exit status. Without torchrun it runs as it is.
    """

    @functools.wraps(main)
    def run(*arguments: P.args, **options: P.kwargs) -> int:
        if os.environ.get("WORLD_SIZE", "1") == "1" or size() > 1:
            return main(*arguments, **options)
        _join()
        with ExitStack() as stack:
            if rank():
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
            status = main(*arguments, **options)
        if status == INTERRUPTED:
            return status
        # A failed process would make torchrun end the first one, which may not have said all yet.
        status = 0 if rank() else status
        dist.destroy_process_group()
        return status

    return run


def on_first(call: Callable[P, T]) -> Callable[P, T]:
    """Return a function that the first process alone calls, for all: each has what comes of it.

    All processes call it together. What `call` returns or raises must be picklable.
    """

    @functools.wraps(call)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        global _first_alone
        if size() == 1:
            return call(*arguments, **options)
        outcome: list[tuple[T | None, Exception | None]] = [(None, None)]
        if rank() == 0:
            _first_alone = True
            try:
                outcome = [(call(*arguments, **options), None)]
            except Exception as error:
                outcome = [(None, error)]
            finally:
                _first_alone = False
        with in_step():
            dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
        result, error_of_all = outcome[0]
        if error_of_all is not None:
            raise error_of_all
        return result  # type: ignore[return-value]

    return run


def mean(total: Tensor, count: int) -> float:
    """Return the sum of all processes' totals over the sum of their counts."""
    if size() == 1:
        return total.item() / count
    # On the CPU: MPS has no float64.
    sums = torch.tensor([total.item(), count], dtype=torch.float64)
    dist.all_reduce(sums)
    return (sums[0] / sums[1]).item()


def in_any_process(happened: bool) -> bool:
    """Return whether something happened in one of the processes; all of them ask together."""
    if size() == 1:
        return happened
    flag = torch.tensor(int(happened))
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their sums over all processes, which have the same ones."""
    if size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


@contextmanager
def in_step() -> Iterator[None]:
    """Let all processes compute together; an error of one of them ends them all.

    Raises:
        CommonError: all of them failed in the same way.
        SystemExit: one of several processes failed; the first to do so has said why.
    """
    try:
        yield
    except CommonError:
        raise
    except Exception as error:
        if size() == 1:
            raise
        # The others fail next, as the connection to this one is lost.
        if _store.add("failures", 1) == 1:
            print(
                f"error: process {rank()} of {size()} failed: {type(error).__name__}: {error}. "
                "Where that names a lost connection, another process was killed. Finished epochs "
                "are kept: start the same command again",
                file=sys.__stderr__,
                flush=True,
            )
        raise SystemExit(1) from error


def _join() -> None:
    global _store
    from torch.distributed.rendezvous import rendezvous

    has_nccl = torch.cuda.is_available() and dist.is_nccl_available()  # Windows has none
    _store, number, count = next(rendezvous("env://"))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if has_nccl else "gloo",
        store=_store,
        rank=number,
        world_size=count,
        timeout=_LONGEST_WAIT,
    )
