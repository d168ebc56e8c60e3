"""The catalogue as a page: one HTML file that needs nothing from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streams.catalogue.words import constrained, readers, used_by, versions_words, writers
from streams.offline.page import render
from streams.schema.stats import write_new


def write_page(facts: Mapping[str, Any], out: Path) -> None:
    """Write it.

    Raises:
        SettingsError: the file is there, or can't be written.
    """
    topics = [
        {
            **topic,
            "written": writers(topic),
            "read": readers(topic),
            "schemas": [{**each, "words": versions_words(each)} for each in topic["schemas"]],
            "fields": [{**each, "used": used_by(each), "wanted": constrained(each)} for each in topic["fields"]],
        }
        for topic in facts["topics"]
    ]
    write_new(out, render("topics.html", pipelines=facts["pipelines"], topics=topics, asked=facts["broker_asked"]))
