"""Pages from templates: one set of rules for escaping, and a shared style sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SHARED = Path(__file__).parent


def render(folder: Path, template: str, filters: dict[str, Any], **values: Any) -> str:
    """The template of a folder with these values, all of them escaped; `base.css` of this folder can be included."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader([folder, SHARED]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(template).render(**values)
