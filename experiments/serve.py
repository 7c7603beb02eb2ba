"""Try a model in the browser: a page that says which product a photo shows, and why.

    python experiments/serve.py runs/cells/.../lca-seed0-*.model
    python experiments/serve.py GALLERY
    python experiments/serve.py MODEL --host 0.0.0.0

The page takes photos from disk and from a camera, and enrolls new products when MODEL is a gallery.
Only this machine reaches it unless --host says otherwise. When the model's folder changes, the next
photo is answered by the new model. A Hugging Face Space runs this file as it is: the variable
LCA_MODEL of the Space is MODEL (docs/tutorial.md). Exit status: 0 when stopped by Ctrl-C or a
signal, 2 when the command line or the model cannot be used or the port is taken.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

if not __package__:  # run as a file, from whatever folder: the packages are beside its own
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.console import set_up_console
from experiments.deploy.inference import MEGAPIXEL, check_megapixels
from experiments.training.device import Precision, resolve_compute

logger = logging.getLogger(__name__)

_HERE = ("127.0.0.1", "localhost", "::1")
_EVERYWHERE = "0.0.0.0"
_MEGABYTE = 1_000_000


class ServeError(ValueError):
    """The page cannot be served; the message says what to change."""


def _on_a_space() -> bool:
    return "SPACE_ID" in os.environ


@dataclass(frozen=True)
class Options:
    """Which model, for whom, and how much of what."""

    model: tyro.conf.Positional[str] = field(
        default_factory=lambda: os.environ.get("LCA_MODEL", "")
    )
    """Folder of a stored classifier or of a gallery; or hf-hub:OWNER/NAME. Default: what the
    environment variable LCA_MODEL says."""
    host: str = field(default_factory=lambda: _EVERYWHERE if _on_a_space() else _HERE[0])
    """Address to listen on; 127.0.0.1: this machine alone; 0.0.0.0: whoever reaches it."""
    port: int = 7860
    """Port to listen on."""
    names: tuple[str, ...] = ()
    """Names that the page is asked for by beside this machine's own, as that of a proxy before
    it."""
    enrolling: Literal["auto", "allow", "refuse"] = "auto"
    """Whether the page enrolls products in a gallery; auto: only where it is for this machine
    alone."""
    top_k: int = 5
    """Products a photo, the likeliest first."""
    max_upload_mb: float = 25.0
    """Larger files are refused; one request may have four times that."""
    max_megapixels: float = 100.0
    """Larger photos are refused; decoding needs 12 to 19 MB of memory a megapixel; at most 178."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: Precision = "auto"
    """Of matrix products; auto: bfloat16 or float16 where the device has it in hardware."""

    def __post_init__(self) -> None:
        if not self.model:
            raise ServeError("no MODEL is given: name the folder of a classifier or of a gallery")
        if self.top_k < 1:
            raise ServeError(f"--top-k is {self.top_k}; expected at least 1")
        if not 0 < self.port < 65536:
            raise ServeError(f"--port is {self.port}; expected 1 to 65535")
        if not self.max_upload_mb > 0:
            raise ServeError(f"--max-upload-mb is {self.max_upload_mb}; expected more than 0")
        check_megapixels(self.max_megapixels)

    @property
    def here_alone(self) -> bool:
        """Whether only this machine reaches the page."""
        return self.host in _HERE

    @property
    def enrolls(self) -> bool:
        """Whether products may be enrolled."""
        return self.enrolling == "allow" or (self.enrolling == "auto" and self.here_alone)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve what `arguments` (default: the command line) ask for; return the exit status."""
    set_up_console()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # gradio asks itself whether it is there
    try:
        options = tyro.cli(Options, args=arguments, prog="serve.py")
        with serving(options) as address:
            logger.info("the page is at %s; Ctrl-C stops it", address)
            if not options.here_alone:
                logger.warning(
                    "anyone who reaches this machine over the network can use it%s. Taking a photo "
                    "with a phone's own camera works; the live picture of a camera does not, as "
                    "browsers give it to pages by https and of localhost only",
                    ", and change the gallery" if options.enrolls else "",
                )
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            threading.Event().wait()
    except (ValueError, OSError, ImportError) as error:
        logger.error("error: %s", error)
        return 2
    except KeyboardInterrupt:
        logger.info("stopped")
    return 0


@contextmanager
def serving(options: Options) -> Iterator[str]:
    """Serve the page in the background; give its address.

    Raises:
        ServeError: gradio is not installed, or the port is taken.
        PretrainedError: there is no model that can be loaded.
        DeviceError: there is no such device.
    """
    try:  # here, as nothing else needs it
        from starlette.middleware import Middleware

        from experiments.deploy import web_page
        from experiments.deploy.served_model import ServedModel
        from experiments.deploy.web_guard import Guard
    except ImportError as error:
        raise ServeError(
            f'the page needs gradio ({error}); install it with: pip install "lca-fused[serve]"'
        ) from error
    import gradio as gr

    max_upload = round(options.max_upload_mb * _MEGABYTE)
    model = ServedModel(
        options.model,
        resolve_compute(options.device, options.precision),
        top_k=options.top_k,
        max_pixels=round(options.max_megapixels * MEGAPIXEL),
    )
    with web_page.private_folder() as folder:
        limits = web_page.Limits(max_upload, options.enrolls)
        blocks = web_page.build_page(model, limits, folder)
        guard = Middleware(
            Guard,
            max_bytes=web_page.TOGETHER * max_upload,
            hosts={*_HERE, *map(str.lower, options.names)} if options.here_alone else None,
            same_origin=not _on_a_space(),
        )
        try:
            _, address, _ = blocks.launch(
                server_name=options.host,
                server_port=options.port,
                max_file_size=max_upload,
                app_kwargs={"middleware": [guard]},
                theme=gr.themes.Default(
                    font=web_page.SYSTEM_FONTS, font_mono=web_page.SYSTEM_FONTS
                ),
                css=web_page.STYLE,
                prevent_thread_lock=True,
                quiet=True,
                inline=False,
                share=False,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                mcp_server=False,
                pwa=False,
                ssr_mode=False,
            )
        except OSError as error:
            raise ServeError(
                f"port {options.port} of {options.host} cannot be listened on; is it taken? Name "
                "another with --port"
            ) from error
        try:
            yield address
        finally:
            blocks.close(verbose=False)


if __name__ == "__main__":
    sys.exit(main())
