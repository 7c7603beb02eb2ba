"""How many worker processes the shared memory holds the batches of."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from experiments.training.device import Compute, DeviceError, share_cores
from experiments.training.distributed import on_first, processes_here
from experiments.training.recipe import Recipe

logger = logging.getLogger(__name__)

_FOLDER = Path("/dev/shm")  # Linux's; elsewhere there is no such limit
_PREFETCHED = 2  # batches that each worker of a DataLoader holds ready
_MB = 1_000_000


def training_workers(compute: Compute, asked: int | None, recipe: Recipe, *, jobs: int = 1) -> int:
    """Divide the cores between training and the workers that augment photos; return how many.

    Args:
        compute: device that the model trains on.
        asked: number of workers that the command asked for, or None.
        recipe: settings of the finetuning, with an image size (`Recipe.for_backbone`).
        jobs: number of processes like this one that train at the same time.

    Raises:
        DeviceError: the shared memory does not hold the batches of the workers asked for.
    """
    return on_first(workers_that_fit)(
        share_cores(compute, asked, training=True, jobs=jobs),
        asked,
        photos=recipe.batch_size,
        image_size=recipe.image_size,
        jobs=jobs,
    )


def workers_that_fit(
    workers: int, asked: int | None, *, photos: int, image_size: int, jobs: int = 1
) -> int:
    """Return a number of workers whose batches the shared memory holds.

    A container has 64 MB of it unless asked for more, and a process that finds it full is killed.

    Args:
        workers: number of workers there should be.
        asked: number of workers that the command asked for, or None.
        photos: number of photos in a batch.
        image_size: side S in pixels of the batch's photos, (3, S, S) float32.
        jobs: number of processes that have as many workers each.

    Raises:
        DeviceError: it does not hold the batches of the workers that were asked for.
    """
    if workers == 0 or not _FOLDER.is_dir():
        return workers
    batch = 4 * 3 * image_size**2 * photos * processes_here() * jobs
    free = shutil.disk_usage(_FOLDER).free
    # One more is being computed on.
    fitting = max(0, free // batch - 1) // _PREFETCHED
    if workers <= fitting:
        return workers
    reason = (
        f"{_FOLDER} has {free / _MB:.1f} MB free, and {workers} workers need up to "
        f"{(_PREFETCHED * workers + 1) * batch / _MB:.1f} MB of it"
    )
    more = "take smaller batches, or give the container more (docker run --shm-size=2g)"
    if asked is not None:
        raise DeviceError(f"{reason}; use --workers {fitting}, {more}")
    logger.warning("%s: going on with %d workers; for more speed %s", reason, fitting, more)
    return fitting
