"""HTML from templates that escape every word. A template lies in the folder `templates` of a
package."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(package: str, name: str, **values: Any) -> str:
    """A template of a package, filled with values. jinja2.TemplateNotFound for a template that does
    not exist."""
    return _environment(package).get_template(name).render(values)


@cache
def _environment(package: str) -> Environment:
    found = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False}
    return found
