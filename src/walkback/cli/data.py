"""`walkback data`: list datasets, and prepare one before a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from walkback.cli.common import Json, completion, data_overrides, registry_of
from walkback.cli.console import Output, plain, table

if TYPE_CHECKING:
    from walkback.data import DataInfo

_MOST_COLUMNS = 20

app = typer.Typer(no_args_is_help=True, help="List and prepare datasets.")


@app.command("list")
def list_data(ctx: typer.Context, json: Json = False) -> None:
    """List datasets by name, for `walkback run --data NAME`."""
    output, datasets = Output(), registry_of(ctx).components("dataset")
    mirror = os.environ.get("WALKBACK_DATA")
    if json:
        records = [{"name": d.reference, "plugin": d.plugin, "summary": d.spec.summary} for d in datasets]
        output.emit_json({"datasets": records, "mirror": mirror})
        return
    output.show(
        table(("name", "summary", "plugin"), [(d.reference, d.spec.summary, d.plugin) for d in datasets])
    )
    output.show("", plain(_mirror(mirror)))


@app.command("prepare")
def prepare_data(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            help="Name of a dataset, path, or hub id owner/name.", autocompletion=completion("dataset")
        ),
    ],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="OPTION=VALUE", help="Set an option of the dataset.")
    ] = None,
    json: Json = False,
) -> None:
    """Download, decode and cache a dataset now, and show its description."""
    from walkback.configuration.components import component_table
    from walkback.configuration.layering import resolve_data
    from walkback.data import prepare_data
    from walkback.extensions.attribution import naming_plugins

    registry, output = registry_of(ctx), Output()
    overrides = data_overrides(assignments)
    config = resolve_data(registry, source, overrides)
    dataset = registry.load(registry.find("dataset", config.name))(**config.options)
    with output.progress() as watch, naming_plugins(registry):
        watch.stage(f"Preparing {config.name}", 0)
        prepare_data(dataset, watch)
    if json:
        output.emit_json({"data": component_table(config), "info": dataset.info.to_dict()})
    else:
        output.show(_table(dataset.info))


def _table(info: DataInfo) -> Any:
    lines = [
        ("name", info.name),
        ("shape", " × ".join(str(size) for size in info.shape)),
        ("support", info.support),
        ("gray levels", "not quantized" if info.bins is None else str(info.bins)),
        *_columns(info),
        *_categories(info),
        ("examples", ", ".join(f"{count:,} {split}" for split, count in info.splits.items())),
        ("preprocessing", "; ".join(info.preprocessing) or "none"),
        ("fingerprint", info.fingerprint),
    ]
    return table(("", ""), lines)


def _columns(info: DataInfo) -> list[tuple[str, str]]:
    """Return rows with mean and deviation of each column of a table."""
    fit = info.standardized
    if fit is None:
        return []
    num = len(fit.mean)
    names = fit.columns or (tuple(f"x{index}" for index in range(num)) if num > 1 else ("all",))
    transforms = [f" after {found}" * (found.kind != "none") for found in fit.transforms] or [""] * num
    rows = [
        f"{plain(name)}: {mean:.4g} ± {deviation:.3g}{after}{' (whole numbers)' if whole else ''}"
        for name, mean, deviation, after, whole in zip(
            names, fit.mean, fit.deviation, transforms, fit.whole, strict=True
        )
    ]
    more = [f"… ({num - _MOST_COLUMNS} more)"] if num > _MOST_COLUMNS else []
    first, *others = (*rows[:_MOST_COLUMNS], *more)
    return [("mean ± deviation", first), *(("", row) for row in others)]


def _categories(info: DataInfo) -> list[tuple[str, str]]:
    """Return rows with the categories of each column of a table."""
    found = info.categories
    if found is None:
        return []
    rows = [
        f"{plain(column)}: {_listing(names)}"
        for column, names in zip(found.columns[:_MOST_COLUMNS], found.names, strict=False)
    ]
    more = [f"… ({len(found.columns) - len(rows)} more)"] if len(found.columns) > len(rows) else []
    first, *others = (*rows, *more)
    return [("categories", first), *(("", row) for row in others)]


def _listing(names: tuple[str, ...]) -> str:
    shown = ", ".join(str(plain(name)) for name in names[:_MOST_COLUMNS])
    return f"{shown}, …" if len(names) > _MOST_COLUMNS else shown


def _mirror(mirror: str | None) -> str:
    if mirror is None:
        return "Hub datasets are downloaded; set WALKBACK_DATA=DIR to read a local mirror instead."
    missing = "" if Path(mirror).is_dir() else " (no such directory)"
    return f"Hub datasets are read from the local mirror WALKBACK_DATA={mirror}{missing} where it has them."
