"""`walkback chain`: checkpoints of chains that are known instead of learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from walkback.cli.common import Force, Json, Seed, carry_out, completion
from walkback.cli.console import Output

app = typer.Typer(no_args_is_help=True, help="Make checkpoints of known chains.")


@app.callback()
def _group() -> None:
    """Make checkpoints of known chains."""


@app.command("new")
def new(
    ctx: typer.Context,
    operator: Annotated[
        str, typer.Argument(help="The operator, which is not trained.", autocompletion=completion("operator"))
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SPACE|DATA",
            help="States: real:2, binary:5 or one-hot:12,3 (support and shape), or data to compare the chain with.",
        ),
    ] = None,
    prior: Annotated[
        str | None, typer.Option(help="Prior of the first state.", autocompletion=completion("prior"))
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Schedule of the first steps.", autocompletion=completion("schedule"))
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.OPTION=VALUE", help="Set any option; may be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint to write.")] = Path(
        "chain.safetensors"
    ),
    force: Force = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Write an operator, with its options and without training, as a checkpoint for sample, evaluate and diagnose.

    walkback chain new markov --set operator.matrix=[[0.1,0.9],[0.6,0.4]] -o two-states.safetensors

    walkback chain new my-sampler --data real:2 -o sampler.safetensors
    """
    from walkback.jobs.chain import ChainJob
    from walkback.jobs.configuration import choices_of
    from walkback.jobs.job import flags

    output = Output()
    parts = {"operator": operator, "data": data, "prior": prior, "schedule": schedule, "seed": seed}
    found = carry_out(ctx, output, ChainJob(choices_of(parts, assignments or ()), out, force, flags))
    info = found.prepared.dataset.info
    if json:
        output.emit_json({"file": str(out), "operator": operator, "data": info.name})
    else:
        output.note(f"Wrote {out}: {operator} on {info.name}.")
