"""Which files are photos by their name or first bytes, and which of them can be read here."""

from __future__ import annotations

import importlib
from contextlib import suppress
from functools import cache
from pathlib import Path

from PIL import Image

# What Pillow opens and is no photo: documents, drawings, icons, and containers that it only names.
_NO_PHOTOS = "BUFR CUR EPS GRIB HDF5 ICNS ICO IPTC MPEG PDF WMF"
_HEIF = ".heic .heics .heif .heifs .hif"
_AVIF = ".avif .avifs"
_RAW = """
    .3fr .arw .bay .cap .cr2 .cr3 .crw .dcr .dcs .dng .drf .eip .erf .fff .gpr .iiq .k25 .kdc .mdc
    .mef .mos .mrw .nef .nrw .orf .pef .ptx .pxn .raf .raw .rw2 .rwl .rwz .sr2 .srf .srw .x3f
"""
_OTHERS = """
    .ai .bpg .cdr .cur .emf .eps .exr .flif .hdp .hdr .icns .ico .jls .jng .jxl .jxr .psb .svg .svgz
    .wdp .wmf .xcf
"""

# The first bytes of formats that phones, browsers and programs save photos in.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"\x00\x00\x00\x0cjP  ")
_FTYP_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1")
_HEAD = 16  # bytes


@cache
def readable_suffixes() -> frozenset[str]:
    """Return the suffixes, in lower case, of the photo formats that this Pillow decodes."""
    _register_heif()
    Image.init()
    return frozenset(
        suffix
        for suffix, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in _NO_PHOTOS.split()
    )


def why_not_read(path: Path) -> str | None:
    """Return what to do to have a file read that is a photo of a format that is not.

    Returns:
        A clause, or None for a file of any other suffix.
    """
    suffix = path.suffix.lower()
    if suffix in readable_suffixes():
        return None
    for suffixes, advice in (
        (_HEIF, "to read it: pip install pi-heif, or save as JPEG"),
        (_AVIF, "to read it: pip install 'pillow>=11.3', or save as JPEG"),
        (_RAW, "camera raw is not read: save as JPEG or TIFF"),
        (_OTHERS, "save as JPEG or PNG"),
    ):
        if suffix in suffixes.split():
            return advice
    return None


def holds_photo(path: Path) -> bool:
    """Return whether a regular file starts as photos do, whatever its name; False if unreadable."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    if head[4:8] == b"ftyp":
        return head[8:12] in _FTYP_BRANDS
    return head.startswith(_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _register_heif() -> None:
    """Let Pillow read HEIC and HEIF where a package for it is installed."""
    for name in ("pillow_heif", "pi_heif"):
        with suppress(ImportError):
            importlib.import_module(name).register_heif_opener()
            return


_register_heif()  # when imported: a process that only decodes never asks for a suffix
