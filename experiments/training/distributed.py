"""Training on several GPUs or machines: torchrun's first process leads, the others help it train.

    torchrun --nproc-per-node 2 experiments/run_all.py grocery-store --data-root DIR

The first process runs the whole program: it alone reads and writes results, scores and reports.
The others wait for it to train, then compute their share of every step. So a program has no place
where two processes could come to different decisions, and what it writes is written once.
"""

from __future__ import annotations

import functools
import io
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partialmethod
from typing import Any, ParamSpec, cast

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

logger = logging.getLogger(__name__)

P = ParamSpec("P")

# The longest that one process may keep the others waiting in the middle of an epoch (the first
# photos may have to be decoded), and between epochs, where the first scores or matches photos.
_WITHIN_EPOCHS = timedelta(minutes=30)
_BETWEEN_EPOCHS = timedelta(days=7)


class TeamError(RuntimeError):
    """The processes fell out of step: one of them failed while they worked together."""


class Team:
    """The processes that train together; `Team()` is this one alone.

    Attributes:
        rank: which of them this is; 0 leads.
        size: how many there are.
        broken: whether they fell out of step and can do nothing more together.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, messages: dist.ProcessGroup | None = None
    ) -> None:
        self.rank = rank
        self.size = size
        self.broken = False
        self._messages = messages

    @property
    def local_rank(self) -> int:
        """Which of the processes on this machine this is: the number of its GPU."""
        return _from_environment("LOCAL_RANK", 0) if self.size > 1 else 0

    def tell(self, message: Any) -> None:
        """Send tensors and picklable values from the first process to all others.

        Raises:
            TeamError: another process is gone.
        """
        if self.size == 1:
            return
        file = io.BytesIO()
        torch.save(message, file)
        with self.in_step():
            dist.broadcast_object_list([file.getvalue()], src=0, group=self._messages)

    def hear(self) -> Any:
        """Wait for what the first process tells; its tensors arrive on the CPU.

        Raises:
            TeamError: the first process is gone.
        """
        box = [b""]
        with self.in_step():
            dist.broadcast_object_list(box, src=0, group=self._messages)
        # Not a file from elsewhere: this program's own first process has sent it.
        return torch.load(io.BytesIO(box[0]), map_location="cpu", weights_only=False)

    def mean(self, total: Tensor, count: int) -> float:
        """Return the sum of all processes' totals over the sum of their counts."""
        if self.size == 1:
            return total.item() / count
        sums = torch.stack([total.double(), torch.full_like(total, count, dtype=torch.float64)])
        dist.all_reduce(sums)
        return (sums[0] / sums[1]).item()

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Let all processes compute together; a failure of one of them ends them all.

        Raises:
            TeamError: this process failed, or another one did.
        """
        try:
            yield
        except BaseException as error:
            self.broken = self.size > 1
            if not self.broken or not isinstance(error, Exception):
                raise
            raise TeamError(
                f"process {self.rank} of {self.size} cannot go on with the others: "
                f"{type(error).__name__}: {error}. Where that names a lost connection, another "
                "process has failed first and said why. Finished epochs are kept: start the same "
                "command again"
            ) from error


ALONE = Team()
"""No other process helps."""

_team = ALONE


def current_team() -> Team:
    """Return the processes that this one trains with."""
    return _team


def processes_here() -> int:
    """Return how many processes torchrun started on this machine; 1 without it."""
    return _from_environment("LOCAL_WORLD_SIZE", 1)


def led_by_first_process(main: Callable[P, int]) -> Callable[P, int]:
    """Decorate a program: under torchrun its first process runs it, the others help it train.

    Args:
        main: the program; returns its exit status. Without torchrun it runs as it is.
    """

    @functools.wraps(main)
    def run(*arguments: P.args, **options: P.kwargs) -> int:
        if _from_environment("WORLD_SIZE", 1) == 1 or _team is not ALONE:
            return main(*arguments, **options)
        with _joined() as members:
            if members.rank:
                return _help(members)
            try:
                return main(*arguments, **options)
            except TeamError as error:
                logger.error("error: %s", error)
                return 1
            finally:
                if not members.broken:
                    members.tell(None)

    return run


def _help(members: Team) -> int:
    """Do what the first process asks for until it is done; return the exit status."""
    # One progress bar for all processes is enough: the first one's.
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
    while (task := members.hear()) is not None:
        task()
    return 0


@contextmanager
def _joined() -> Iterator[Team]:
    global _team
    has_nccl = torch.cuda.is_available() and dist.is_nccl_available()  # Windows has none
    backend = "cpu:gloo,cuda:nccl" if has_nccl else "gloo"
    dist.init_process_group(backend, timeout=_WITHIN_EPOCHS)
    messages = cast("dist.ProcessGroup", dist.new_group(backend="gloo", timeout=_BETWEEN_EPOCHS))
    _team = Team(dist.get_rank(), dist.get_world_size(), messages)
    try:
        yield _team
    finally:
        # Out of step there is nobody to say goodbye to; the end of the process ends connections.
        if not _team.broken:
            dist.destroy_process_group()
        _team = ALONE


def _from_environment(name: str, default: int) -> int:
    return int(os.environ.get(name, default))
