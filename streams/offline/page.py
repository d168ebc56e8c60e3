"""Static pages: the door to the template library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

PAGES = Path(__file__).with_name("pages")


def render(page: str, **facts: Any) -> str:
    """A page of `streams/offline/pages`, with facts in it; whatever they hold is text and never markup."""
    pages = Environment(loader=FileSystemLoader(PAGES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template(page).render(**facts)
