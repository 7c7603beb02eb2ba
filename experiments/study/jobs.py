"""Cells computed side by side on one machine, in processes of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partialmethod
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from experiments.console import set_up_console
from experiments.data.dataset import ProductDataset
from experiments.results import Result
from experiments.study.cells import Cell, run_cell
from experiments.training import distributed
from experiments.training.device import Compute, cores
from experiments.training.photos import Photos
from experiments.training.recipe import Recipe
from experiments.training.shared_memory import training_workers
from lca_fused.preprocessing import Preprocessing

_MOST = 8
_BYTES_PER_JOB = 2 << 30  # MobileNetV2's step on 16 photos of 224 px takes half of it

K = TypeVar("K")


def number_of_jobs(asked: int | None, compute: Compute, cells: int) -> int:
    """Return how many cells to compute at a time.

    It depends on the command and the machine alone, and so does the number of torch's threads: a
    study that goes on after an interruption ends like one that was not interrupted.

    Args:
        asked: number of jobs that the command asked for; None for one per GPU, or per core of a CPU
            as far as its memory reaches, 8 at most.
        compute: the device asked for; a GPU with its number computes one cell at a time.
        cells: number of cells of the study, whether they are stored or not.

    Raises:
        ValueError: several were asked for where torchrun has started several processes.
    """
    if distributed.size() > 1:
        if asked is not None and asked > 1:
            raise ValueError(
                f"--jobs is {asked}, but torchrun has started {distributed.size()} processes that "
                "share each cell; leave one of the two out"
            )
        return 1
    if asked is None:
        asked = _gpus(compute.device) or min(cores(), _memory() // _BYTES_PER_JOB, _MOST)
    return max(1, min(asked, cells))


@contextmanager
def side_by_side(
    jobs: int, cells: Mapping[K, Cell], output: Path, asked_workers: int | None
) -> Iterator[dict[K, Future[Result]]]:
    """Compute cells in `jobs` processes; an exception in this context ends them at once.

    They also end with this process, however it ends. Each has its share of the cores, or the GPU
    whose turn it is, and its own line of progress below the one that counts finished cells.

    Args:
        jobs: number of processes; fewer are started where there are fewer cells.
        cells: the cells to compute, in this order.
        output: folder of results, as `run_cell` takes it.
        asked_workers: number of workers of each process, as `training_workers` takes it.

    Yields:
        The future of each cell's result, as `run_cell` returns it.
    """
    context = get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(jobs):
        numbers.put(number)
    heard, held = Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        min(jobs, len(cells)),
        mp_context=context,
        initializer=_begin,
        initargs=(numbers, context.RLock(), heard, next(iter(cells.values())).compute.device),
    )
    with logging_redirect_tqdm(), tqdm(total=len(cells), unit="cell", desc="cells") as bar:
        try:
            futures = {
                key: pool.submit(_compute, cell, output, asked_workers, jobs)
                for key, cell in cells.items()
            }
            # A submission wakes the pool's manager before it starts a process: unless it is woken
            # once more, it does not hear the last process die.
            pool.submit(int)
            for future in futures.values():
                future.add_done_callback(lambda _: bar.update())
            yield futures
        except BaseException:
            held.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(numbers: Any, lock: Any, heard: Connection, device: torch.device) -> None:
    """Set up a process of the pool."""
    Thread(target=_end_with_the_first, args=(heard,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it as well, and ends us
    number = numbers.get()
    tqdm.set_lock(lock)
    tqdm.__init__ = partialmethod(tqdm.__init__, position=number + 1)
    set_up_console()
    if device.type == "cuda" and device.index is None:
        torch.cuda.set_device(number % torch.cuda.device_count())


def _end_with_the_first(heard: Connection) -> None:
    try:
        heard.recv()
    except EOFError:
        os._exit(1)


def _compute(cell: Cell, output: Path, asked_workers: int | None, jobs: int) -> Result:
    workers = training_workers(cell.compute, asked_workers, cell.recipe, jobs=jobs)
    dataset, recipe = cell.dataset, cell.recipe
    return run_cell(
        cell, lambda: _photos(dataset, recipe, cell.network.preprocessing), output, workers
    )


@lru_cache(maxsize=1)
def _photos(dataset: ProductDataset, recipe: Recipe, preprocessing: Preprocessing) -> Photos:
    return Photos.load(dataset, recipe, preprocessing)


def _gpus(device: torch.device) -> int:
    if device.type == "mps":
        return 1
    if device.type != "cuda":
        return 0
    return torch.cuda.device_count() if device.index is None else 1


def _memory() -> int:
    """Return the bytes of this machine's memory; where it does not tell, those of a small one."""
    if not hasattr(os, "sysconf"):
        return 8 << 30
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
