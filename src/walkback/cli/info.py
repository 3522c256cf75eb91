"""`walkback info`: the description of a checkpoint, read from its header."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from walkback.cli.common import CheckpointFile, Json
from walkback.cli.console import Output, table


def info(
    checkpoint: CheckpointFile,
    json: Json = False,
) -> None:
    """Show what a checkpoint contains: components and their plugins, data, progress, configuration."""
    from walkback.storage.description import read_description
    from walkback.storage.store import checkpoint_in

    output, path = Output(), checkpoint_in(checkpoint)
    if path != checkpoint:
        output.note(f"Taking {path}.")
    description = read_description(path)
    if json:
        output.emit_json(description.model_dump(mode="json"))
        return
    origins = [
        (section, origin.name, f"{origin.distribution} {origin.version}")
        for section, origin in description.components.items()
    ]
    data = description.data
    facts = [
        ("written by", f"walkback {description.walkback}, torch {description.torch}"),
        ("weights", "running average" if description.weights == "ema" else "last"),
        ("progress", ", ".join(f"{value:,} {name}" for name, value in description.progress.items())),
        ("data", f"{data.get('name')} {_shape(data.get('shape'))}, {data.get('support')}"),
        *([("classes", _classes(data["classes"]))] if data.get("classes") else []),
        ("preprocessing", "; ".join(str(step) for step in _list(data.get("preprocessing"))) or "none"),
    ]
    output.show(
        table(("", ""), facts),
        "",
        table(("section", "component", "from"), origins),
        "",
        table(("option", "value"), [*_options(description.config)]),
    )


def _options(config: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield all options by dotted path, except names of components, which are shown with their origins."""
    for option, value in config.items():
        if isinstance(value, dict):
            yield from _options(value, f"{path}{option}.")
        elif path and option != "name" and value is not None:
            yield f"{path}{option}", str(value)


def _classes(value: object) -> str:
    """Return the names of the classes that the model is conditioned on."""
    names = [str(_list(pair)[0]) for pair in _list(value) if _list(pair)]
    return ", ".join(names[:20]) + (f", … ({len(names)})" if len(names) > 20 else "")


def _shape(value: object) -> str:
    return " × ".join(str(size) for size in _list(value))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
