"""What the site shows of the repository beyond docs/: README, changelog, results' pictures."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md"}

_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^]]*)\]\((?P<target>[^):#]+)(?P<anchor>#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README, changelog and the pictures that pages show from elsewhere in the repository."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    for page in files.documentation_pages():
        for link in _LINK.finditer(page.content_string):
            path = _path(page.src_uri, link["target"])
            if link["picture"] and files.get_file_from_path(_place(path)) is None:
                files.append(File.generated(config, _place(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to pages of the site, else to the repository where its address is known."""

    def led(link: re.Match[str]) -> str:
        path = _path(page.file.src_uri, link["target"])
        if files.get_file_from_path(_place(path)) is not None:
            return f"{link['picture']}[{link['text']}]({_place(path)}{link['anchor'] or ''})"
        if config.repo_url:
            return f"[{link['text']}]({config.repo_url.rstrip('/')}/blob/HEAD/{path})"
        return link["text"]

    return _LINK.sub(led, markdown)


def _path(page: str, target: str) -> str:
    """Return the path below the repository's root that a link of a page means."""
    folder = ROOT if page in PAGES else ROOT / "docs"
    return (folder / target).resolve().relative_to(ROOT).as_posix()


def _place(path: str) -> str:
    """Return where the site has a file of the repository."""
    pages = {source: page for page, source in PAGES.items()}
    return pages.get(path, path.removeprefix("docs/"))
