"""For MkDocs: links to files outside of docs/, which a site has no page for, become their names."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

logger = logging.getLogger("mkdocs.hooks")
DOCS = Path(__file__).parent
OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page without these links. One whose file is not there fails the strict build."""

    def named(link: re.Match[str]) -> str:
        if not (DOCS / link[2]).exists():
            logger.warning("%s: there is no %s", page.file.src_uri, link[2])
        return link[1]

    return OUTSIDE.sub(named, markdown)
