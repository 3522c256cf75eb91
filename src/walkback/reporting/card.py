"""The card of a model on the hub, made of the content of a page: Markdown with a YAML header.

Text from checkpoints is escaped, so that it is interpreted neither as Markdown nor as HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from walkback.errors import ConfigurationError, in_one_line, shortened
from walkback.report import Report, number
from walkback.reporting.page import PageContent
from walkback.reporting.record import bound_text
from walkback.storage.hub import HubModel, hub_model
from walkback.storage.outcome import Bound

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~-])")
_LONGEST = 300
_PICTURES = ("annealed", "chain")


def card(
    content: PageContent, model: HubModel, pictures: Iterable[str], license_name: str | None = None
) -> str:
    """Format the README.md of a model.

    Args:
        content: Content of the page about the run.
        model: Address of the model.
        pictures: Names of the pictures that are published with the card.
        license_name: License of the weights, as an identifier of the hub; None states none.
    """
    run = content.run
    operator = str(run.options.get("operator.name", "an operator"))
    data = str(run.options.get("data.name", "unknown data"))
    parts = [
        f"# {_text(model.repository.partition('/')[2])}",
        f"A transition operator ({_text(operator)}) that was trained by walkback on {_text(data)}: a stochastic map "
        "whose repeated application samples the data (Variational Walkback, Goyal et al., 2017).",
        "```python\nimport walkback as wb\n\n"
        f'model = wb.load("{model}")\nsamples = wb.sample(model, 16, extra=300)\n```',
        f"```sh\nwalkback sample {model} --num 64 --out samples.png\n```",
        *(f"![{name}](samples/{name}.png)" for name in pictures if name in _PICTURES),
        "## Results",
        _table(("bound on -log p", "value"), _bounds(run.final, run.best)),
        *(_report(report) for report in content.reports),
        "## Training",
        _table(("", ""), content.facts),
        "All curves, measurements and options are in `report.html`. The file `final.safetensors` contains tensors "
        "and a description in JSON, no code.",
    ]
    header = _header(content, data, operator, license_name)
    return f"---\n{header}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _header(content: PageContent, data: str, operator: str, license_name: str | None) -> str:
    """Return the YAML header for the hub."""
    from huggingface_hub import ModelCardData

    names = dict(content.facts)
    try:
        of_hub = hub_model(str(names.get("name", ""))).repository
    except ConfigurationError:
        of_hub = None
    metrics = [*(["bits/dim"] if content.run.final and content.run.final.bits_per_dimension else []), "nats"]
    return (
        ModelCardData(
            license=license_name,
            library_name="walkback",
            tags=[
                "walkback",
                "variational-walkback",
                "generative-model",
                "markov-chain",
                in_one_line(operator),
            ],
            datasets=[of_hub] if of_hub else None,
            metrics=metrics,
            walkback_data=in_one_line(data),
        )
        .to_yaml()
        .strip()
    )


def _bounds(final: Bound | None, best: Bound | None) -> list[tuple[str, str]]:
    rows = []
    if final is not None:
        rows.append((f"{final.split} data, {final.examples or '?'} examples", bound_text(final)))
    if best is not None:
        rows.append(("best on validation data", bound_text(best)))
    return rows


def _report(report: Report) -> str:
    rows = [
        (each.name.replace("_", " "), f"{number(each)} {each.unit}", each.meaning) for each in report.figures
    ]
    warnings = "".join(f"\n- {_text(warning)}" for warning in report.warnings)
    return f"### {_text(report.name)}\n\n{_table(('figure', 'value', 'meaning'), rows)}\n{warnings}"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(map(_text, row)) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(header) + " |", "|---" * len(header) + "|", *lines])


def _text(value: object) -> str:
    """Escape text for Markdown, as one line."""
    return _SPECIAL.sub(r"\\\1", escape(shortened(in_one_line(str(value)), _LONGEST), quote=False))
