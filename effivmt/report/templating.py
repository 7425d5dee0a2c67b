"""What the HTML pages share: the template environment, which escapes every text, and the format of numbers."""

import base64
import hashlib
import math
from functools import cache

import jinja2
from markupsafe import Markup

from effivmt.evaluation.metrics import METRICS, Metric, ordered


@cache
def template(name: str) -> jinja2.Template:
    """A template of `effivmt/report/templates`, with the filters `number`, `duration` and `policy_hash`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("effivmt.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, duration=_duration, policy_hash=_policy_hash)
    return environment.get_template(name)


def described(names: set[str]) -> dict[str, Metric]:
    """The metrics of these names in the order in which they are shown; an unknown one is labelled by its name."""
    unknown = "A number of this run without a description here."
    return {name: METRICS.get(name) or Metric(name.replace("_", " "), "", unknown) for name in ordered(names)}


def base64_text(content: bytes) -> str:
    """The bytes as base64."""
    return base64.b64encode(content).decode("ascii")


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _policy_hash(source: Markup) -> str:
    return f"'sha256-{base64_text(hashlib.sha256(source.encode('utf-8')).digest())}'"
