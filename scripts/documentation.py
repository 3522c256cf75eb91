"""Hooks of mkdocs: folders in the navigation, and links from docs/ to other files of the repository.

The site has none of those files. With `repo_url` in mkdocs.yml such a link leads there, without it only its text stays.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def on_config(config: Any) -> None:
    """`decisions/` in the navigation stands for the pages of that folder, its README first."""
    config.nav = _expanded(config.nav, Path(config.docs_dir))


def _expanded(item: Any, docs: Path) -> Any:
    if isinstance(item, dict):
        return {title: _expanded(inner, docs) for title, inner in item.items()}
    if isinstance(item, list):
        return [_expanded(inner, docs) for inner in item]
    if not (isinstance(item, str) and item.endswith("/")):
        return item
    pages = sorted((docs / item).glob("*.md"), key=lambda page: (page.name != "README.md", page.name))
    return [page.relative_to(docs).as_posix() for page in pages]


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """The text of a page, called by mkdocs before it is rendered."""
    docs = Path(config.docs_dir).resolve()
    place = Path(page.file.abs_src_path).resolve().parent

    def link(match: re.Match[str]) -> str:
        text, target = match.groups()
        if "://" in target or target.startswith("#"):
            return match[0]
        path = (place / target.partition("#")[0]).resolve()
        if path.is_relative_to(docs):
            return match[0]
        if config.repo_url and path.is_relative_to(docs.parent):
            kind = "tree" if path.is_dir() else "blob"
            return f"[{text}]({config.repo_url.rstrip('/')}/{kind}/main/{path.relative_to(docs.parent).as_posix()})"
        return text

    return _LINK.sub(link, markdown)
