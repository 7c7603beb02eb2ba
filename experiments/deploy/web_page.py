"""The page: a photo in, names of products and why out; products enrolled in a gallery."""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from matplotlib.figure import Figure
from PIL import Image

from experiments.deploy.explanation_images import Seen
from experiments.deploy.inference import MEGAPIXEL
from experiments.deploy.served_model import Answer, RefusedError, ServedModel
from lca_fused.decision import Decision
from lca_fused.description import described
from lca_fused.explanation_plots import draw_concepts, draw_heat_map
from lca_fused.photos.formats import content_suffix

logger = logging.getLogger(__name__)

KEPT = 600
"""Seconds after which photos that were sent here are deleted."""
TOGETHER = 4
"""Times the largest photo: what one request may have."""

_WAITING = 100  # requests in the queue; more are told to come again
_HEAT, _CONCEPTS, _DPI = (4.2, 3.6), (6.0, 3.6), 130  # inches, dots per inch
SYSTEM_FONTS = ["system-ui", "sans-serif"]  # gradio's own would be fetched
_PHOTOS = ["image", ".heic", ".heif", ".avif"]  # not all systems know that these are images
_EXPLAINED = (
    "<p>Heat map: red speaks for the product, blue against it. Rectangles: the local concepts that "
    "say most. Of a gallery the most alike enrolled photo follows, taken apart in the same way.</p>"
)
STYLE = """
#about { padding: 0; }
footer { display: none !important; }
.verdict { font-size: 1.4rem; }
.small { opacity: .75; }
"""


@dataclass(frozen=True)
class Limits:
    """What the page takes.

    Attributes:
        max_upload: bytes of a photo's file.
        enrolling: whether products may be enrolled.
    """

    max_upload: int
    enrolling: bool


@contextmanager
def private_folder() -> Iterator[Path]:
    """Give gradio a folder of this process alone; what was sent here is in it, and goes with it.

    By default all pages of one user share a folder, and serve each other's photos.
    """
    before = os.environ.copy()
    with tempfile.TemporaryDirectory(prefix="lca-serve-", ignore_cleanup_errors=True) as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_EXAMPLES_CACHE": folder}
        # More files that gradio would serve, for all who started it with this environment.
        os.environ.pop("GRADIO_ALLOWED_PATHS", None)
        try:
            yield Path(folder)
        finally:
            for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE", "GRADIO_ALLOWED_PATHS"):
                os.environ.pop(name, None)
                if name in before:
                    os.environ[name] = before[name]


def build_page(model: ServedModel, limits: Limits, folder: Path) -> gr.Blocks:
    """Return the page of a model.

    Args:
        model: the model.
        limits: what the page takes.
        folder: folder of `private_folder`: only photos in it are read.
    """
    page = _Page(model, limits, folder)
    with gr.Blocks(
        title="Which product is it?", analytics_enabled=False, delete_cache=(60, KEPT)
    ) as blocks:
        gr.Markdown("# Which product is it?")
        about = gr.HTML(elem_id="about")
        with gr.Tabs():
            with gr.Tab("Recognise"):
                page.build_recognise(about)
            if limits.enrolling and model.is_gallery:
                with gr.Tab("Enroll a product"):
                    page.build_enroll(about)
        with gr.Accordion("What happens with photos, and what is refused", open=False):
            gr.Markdown(page.terms())
        blocks.load(page.about, outputs=about, api_name="about")
    blocks.queue(max_size=_WAITING, default_concurrency_limit=1)
    return blocks


class _Page:
    """What the parts of the page do."""

    def __init__(self, model: ServedModel, limits: Limits, folder: Path) -> None:
        self._model = model
        self._limits = limits
        self._folder = folder.resolve()

    def build_recognise(self, about: gr.HTML) -> None:
        with gr.Row():
            with gr.Column():
                photo = gr.Image(
                    label="A photo of one product",
                    sources=["upload", "webcam", "clipboard"],
                    type="filepath",
                    webcam_options=gr.WebcamOptions(
                        mirror=False, constraints={"video": {"facingMode": "environment"}}
                    ),
                    height=340,
                    elem_id="photo",
                )
            with gr.Column():
                verdict = gr.HTML(elem_id="verdict")
                top = gr.Label(label="Likeliest products", show_heading=False, visible=False)
        pictures: list[gr.components.Component] = [gr.HTML(_EXPLAINED, visible=False)]
        for _ in ("the photo", "the enrolled photo that it is most like"):
            with gr.Row():
                pictures += [
                    gr.Image(
                        visible=False,
                        interactive=False,
                        format="png",
                        show_label=False,
                        alt_text=what,
                        buttons=["fullscreen"],
                        min_width=300,
                        scale=scale,
                    )
                    for what, scale in (("heat map", 2), ("local concepts", 3))
                ]
        # Without preprocessing: gradio would decode the photo, whatever its size.
        photo.change(
            self.recognise,
            photo,
            [verdict, top, *pictures, about],
            preprocess=False,
            api_name="recognise",
            concurrency_id="model",
            show_progress_on=verdict,
        )

    def build_enroll(self, about: gr.HTML) -> None:
        gr.Markdown(
            "A few photos of a product, as a customer would take them, are all that is needed. "
            "The product is recognised from then on, by everybody who uses this gallery."
        )
        name = gr.Textbox(label="Name of the product", max_lines=1, max_length=100)
        photos = gr.File(
            label="Photos of it", file_count="multiple", file_types=_PHOTOS, elem_id="photos"
        )
        replace = gr.Checkbox(label="Replace what is known of a product of that name")
        said = gr.HTML(elem_id="enrolled")
        gr.Button("Enroll", variant="primary", elem_id="enroll").click(
            self.enroll,
            [name, photos, replace],
            [said, about],
            api_name="enroll",
            concurrency_id="model",
        )

    def recognise(self, photo: Any) -> Iterator[list[Any]]:
        """Yield what the parts of the page show: first the names, then also the pictures."""
        if photo is None:
            yield self._shown("")
            return
        try:
            answer = self._model.answer(self._uploaded(photo))
        except RefusedError as error:
            yield self._shown(_paragraph(str(error)))
            return
        said, top = _verdict(answer), dict(answer.prediction.top)
        yield self._shown(said, top)
        if self._model.explains:
            try:
                seen = self._model.explain(answer)
            except ValueError as error:
                logger.error("not explained: %s", error)
                yield self._shown(said + _paragraph("It cannot be explained.", small=True), top)
                return
            yield self._shown(said, top, _pictures(seen, described(answer.classifier).classes))

    def _shown(
        self, said: str, top: dict[str, float] | None = None, pictures: Sequence[Image.Image] = ()
    ) -> list[Any]:
        """Return an update of each output of `recognise`: gradio empties them as it reads them."""
        frames = [*pictures, *[None] * (4 - len(pictures))]
        return [
            said,
            gr.update(value=top, visible=top is not None),
            gr.update(visible=bool(pictures)),
            *(gr.update(value=picture, visible=picture is not None) for picture in frames),
            self.about(),
        ]

    def enroll(self, name: str, photos: Sequence[str] | None, replace: bool) -> list[str]:
        """Return what the parts of the page show."""
        try:
            files = [self._uploaded({"path": path}) for path in photos or ()]
            said = self._model.enroll(name, files, replace=replace)
        except RefusedError as error:
            said = [str(error)]
        return ["".join(map(_paragraph, said)), self.about()]

    def about(self) -> str:
        """Return which model answers, and what is wrong with its folder."""
        said = _paragraph(self._model.describe(), small=True)
        problem = self._model.problem
        return said + (f"<p><b>{escape(problem)}</b></p>" if problem else "")

    def terms(self) -> str:
        """Return what the page does with photos and what it refuses, in Markdown."""
        megabytes = self._limits.max_upload / 1e6
        enrolled = (
            "\n- Of an enrolled product a small copy of each photo, as the network sees it, is "
            "kept in the gallery."
            if self._limits.enrolling and self._model.is_gallery
            else ""
        )
        return f"""
- Photos go to the machine that this page comes from, to no other, and are deleted after
  {KEPT // 60} minutes, and when the server stops.{enrolled}
- Refused are files of more than {megabytes:g} MB, or {TOGETHER * megabytes:g} MB at once; photos of
  more than {self._model.max_pixels / MEGAPIXEL:g} megapixels, however small their file, before they
  are decoded; and whatever is no photo.
- No file of the server can be read through this page but what was sent to it, by whoever has
  its address, which is made of its content.
- One photo at a time is looked at. Up to {_WAITING} wait in a queue.
- If the model's folder changes, the next photo is answered by the new model; if it cannot be used,
  by the one before, and the page says so.
"""

    def _uploaded(self, photo: Any) -> Path:
        """Return the file of a photo that was sent here.

        Raises:
            RefusedError: it is something else.
        """
        path = photo.get("path") if isinstance(photo, dict) else None
        if not isinstance(path, str) or not Path(path).resolve().is_relative_to(self._folder):
            raise RefusedError("That is no photo that was sent to this page.")
        if content_suffix(Path(path)) is None:  # Pillow opens more, as documents that run programs
            raise RefusedError(
                f"{Path(path).name} is no photo of a kind that phones and browsers make (JPEG, "
                "PNG, WebP, GIF, HEIC, AVIF, JPEG 2000); save it as JPEG."
            )
        return Path(path)


def _verdict(answer: Answer) -> str:
    prediction, decision = answer.prediction, described(answer.classifier).decision
    likeliest = f"{escape(prediction.top[0][0])}, {100 * prediction.probability:.1f} %"
    if prediction.accepted:
        said = f'<p class="verdict"><b>{likeliest}</b></p>'
    else:
        said = (
            f'<p class="verdict"><b>Unknown</b></p><p>Not sure enough to name it; most like '
            f"{likeliest}.</p>"
        )
    if decision == Decision():
        said += _paragraph(
            "These probabilities are not calibrated, and every photo gets a name, also of "
            "something that the model does not know: evaluate.py measures both.",
            small=True,
        )
    return said


def _paragraph(text: str, *, small: bool = False) -> str:
    return f'<p class="small">{escape(text)}</p>' if small else f"<p>{escape(text)}</p>"


def _pictures(seen: Sequence[Seen], classes: Sequence[str]) -> list[Image.Image]:
    """Return a heat map and the top local concepts of each photo."""
    pictures = []
    for one in seen:
        drawn, name = (one.photo, one.explanation, one.index), one.name(classes)
        heat = Figure(figsize=_HEAT, layout="constrained")
        draw_heat_map(heat.add_subplot(), *drawn, class_name=name)
        concepts = Figure(figsize=_CONCEPTS, layout="constrained")
        draw_concepts(concepts, *drawn, class_name=name)
        pictures += [_rendered(heat), _rendered(concepts)]
    return pictures


def _rendered(figure: Figure) -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI)
    return Image.open(file)
