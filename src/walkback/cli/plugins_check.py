"""`walkback plugins check`: run the conformance tests of a component."""

from __future__ import annotations

from typing import Annotated

import typer

from walkback.cli.common import Json, registry_of
from walkback.cli.console import Output, plain, table
from walkback.extensions.lookup import component_named, kind_named

_PLUGIN_AT_FAULT = 4


def check(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the component.", show_default=False)],
    kind: Annotated[
        str | None, typer.Option(help="Its kind, if several kinds use the name.", show_default=False)
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="OPTION=VALUE", help="Set an option of the component; may be repeated."
        ),
    ] = None,
    spaces: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            metavar="SUPPORT:SIZE,…",
            help="Check only on these states, such as real:2 or one-hot:12,3; may be repeated.",
        ),
    ] = None,
    expected: Annotated[
        list[str] | None,
        typer.Option(
            "--expect-failure",
            metavar="CHECK[=REASON]",
            help="Expect a check to fail, and report if it passes; may be repeated.",
        ),
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Also run checks that take minutes: compiled gradients.")
    ] = False,
    json: Json = False,
) -> None:
    """Run the conformance tests of a component; the exit code is 4 if one fails."""
    registry = registry_of(ctx)
    found = component_named(registry, name, None if kind is None else kind_named(kind))

    from walkback.configuration.overrides import parse_overrides
    from walkback.data.spaces import parse_space
    from walkback.testing import check_component

    overrides = [f"{found.kind}.{assignment}" for assignment in assignments or ()]
    options = parse_overrides(overrides, [found.kind]).get(found.kind, {})
    output = Output()
    with output.messages.status(f"Checking the {found.kind}") as spinner:
        outcomes = check_component(
            registry,
            kind_named(found.kind),
            found.reference,
            options,
            spaces=[parse_space(space) for space in spaces or ()],
            thorough=thorough,
            expected=dict(_reason(text) for text in expected or ()),
            watch=lambda outcome: spinner.update(f"{outcome.name}: {outcome.status}"),
        )
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if json:
        output.emit_json(
            {
                "name": found.spec.name,
                "kind": found.kind,
                "distribution": found.distribution,
                "version": found.version,
                "options": options,
                "passed": failed == 0,
                "checks": [{"name": o.name, "status": o.status, "message": o.message} for o in outcomes],
            }
        )
    else:
        rows = [(outcome.name, outcome.status, outcome.message) for outcome in outcomes]
        title = f"{found.kind} {found.spec.name} of {found.distribution} {found.version}"
        output.show(plain(title, "bold"), table(("check", "status", ""), rows))
    if failed:
        output.error(f"{failed} of {len(outcomes)} checks failed.")
        raise typer.Exit(_PLUGIN_AT_FAULT)


def _reason(text: str) -> tuple[str, str]:
    """Parse `CHECK=REASON`, or `CHECK`."""
    name, _, reason = text.partition("=")
    return name.strip(), reason.strip() or "--expect-failure"
