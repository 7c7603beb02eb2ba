"""What can be told of single photos by decoding each once, as small as that allows."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
from PIL import Image
from tqdm import tqdm

from experiments.data.cut_out import told_by_itself
from experiments.data.dataset import Ground
from experiments.data.images import read_cutout
from experiments.data.near_copies import perceptual_hash
from experiments.data.photo_files import mask_beside
from experiments.data.plain_ground import SIDE
from lca_fused.photos.reading import ImageError, read_rgba

_FEW = 2000  # photos, which threads decode sooner than processes are started
_CHUNK = 32


@dataclass(frozen=True)
class Inspected:
    """What is known of a photo.

    Attributes:
        path: the file.
        problem: reason why it cannot be read; "" where it can, and only then is the rest known.
        format: its format, as Pillow calls it.
        size: its width and height in pixels, before it is turned upright.
        cut_out: what it would be cut out by in training (`Sample.mask`), or None.
        hash: its perceptual hash; None where it is of one colour.
    """

    path: Path
    problem: str = ""
    format: str = ""
    size: tuple[int, int] = (0, 0)
    cut_out: Path | Ground | None = None
    hash: bytes | None = None


def inspect_photos(paths: Sequence[Path], workers: int) -> list[Inspected]:
    """Inspect photos, in order.

    Args:
        paths: files of the photos.
        workers: processes that decode them where there are many, or else threads; 0: none.
    """
    with _mapped(paths, workers) as inspected:
        return list(
            tqdm(
                inspected,
                total=len(paths),
                desc="looking at photos",
                unit="photo",
                leave=False,
                disable=None,
            )
        )


@contextmanager
def _mapped(paths: Sequence[Path], workers: int) -> Iterator[Iterable[Inspected]]:
    if workers == 0:
        yield map(inspect_photo, paths)
        return
    with _threads_or_processes(len(paths), workers) as pool:
        try:
            yield pool.map(inspect_photo, paths, chunksize=_CHUNK)
        finally:
            pool.shutdown(cancel_futures=True)  # an interruption does not wait for the rest


def _threads_or_processes(photos: int, workers: int) -> Executor:
    if photos <= _FEW:
        return ThreadPoolExecutor(workers)
    # A fork would inherit the locks of other threads, and wait for them forever.
    spawn = get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    cv2.setNumThreads(1)


def inspect_photo(path: Path) -> Inspected:
    """Decode a photo completely, a large JPEG at a fraction of its size, and look at it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            photo = read_rgba(path, at_least=SIDE)
            mask = mask_beside(path)
            if mask is not None:
                read_cutout(path, mask)
            with Image.open(path) as header:
                kind, size = header.format or "", header.size
    except ImageError as error:
        return Inspected(path, error.reason)
    cut_out = mask or told_by_itself(path, photo, always=False)
    return Inspected(path, "", kind, size, cut_out, perceptual_hash(photo))
