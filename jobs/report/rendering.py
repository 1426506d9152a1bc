"""Fills the templates that lie beside this module. HTML is escaped, Markdown is not."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import jinja2


def render(template: str, context: dict[str, Any]) -> bytes:
    """The filled template as UTF-8; a name that the context lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=template.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(context).encode("utf-8", "replace")


def _source(name: str) -> str:
    return files("jobs.report").joinpath(name).read_text(encoding="utf-8")
