"""The settings of a run that belong to the engine itself, as frozen, validated records.

Components (operator, schedule, …) bring their own options; what is here is common to all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from walkback.support.readouts import Readout, readout_temperature

_Decay: TypeAlias = Annotated[float, Field(ge=0.0, lt=1.0)]
Share: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]


def _known(readout: str) -> str:
    readout_temperature(readout)
    return readout


class Settings(BaseModel):
    """Base of all settings: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ChainSettings(Settings):
    """Persistent chains at T = 1, from which some walks start; see `training.persistent_chains`."""

    share: _Decay = Field(
        default=0.0,
        description="Share of each minibatch that starts from persistent chains at T = 1, not from data.",
    )
    after: NonNegativeInt = Field(default=0, description="Walks of data alone before the chains begin.")
    pool: PositiveInt = Field(default=1000, description="Number of chains, on each process.")
    steps: PositiveInt = Field(
        default=10, description="Steps at T = 1 that a chain takes each time it is used."
    )
    direction: Literal["cooling", "heating"] = Field(
        default="cooling",
        description="What chains step by: the operator's cooling kernel, or the process, as walks going on would.",
    )
    restart: Share = Field(
        default=0.02,
        description="Probability that a chain starts anew from data after its use: it has 1/p on average.",
    )


class TrainingSettings(Settings):
    """How the operator is trained.

    `steps` counts walks: one walk is one minibatch heated through all K levels. `updates = "online"` makes an
    optimizer step after every step of a walk (the paper's choice), `"batch"` one per walk from the gradients of its K
    steps, `"stacked"` the same update computed by one forward over all K·B rows (the operator must accept
    levels that differ by row).

    With `minutes` training ends when that much time has been spent walking, or after `steps` walks, whichever is
    first; the learning rate follows whichever of the two is further (`optimization.share_done`).
    """

    steps: NonNegativeInt = 10_000
    minutes: PositiveFloat | None = Field(
        None,
        description="Minutes to train for, validation and drawing not counted; training.steps is then a second limit.",
    )
    batch_size: PositiveInt = 100
    updates: Literal["online", "batch", "stacked"] = "batch"
    lr: PositiveFloat = 1e-4
    lr_schedule: Literal["constant", "cosine"] = "constant"
    warmup: NonNegativeInt = Field(0, description="Walks over which the learning rate rises from 0.")
    betas: tuple[_Decay, _Decay] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.0
    clip: NonNegativeFloat = Field(1.0, description="Largest gradient norm; 0 leaves gradients as they are.")
    ema: _Decay = Field(0.999, description="Decay of the weight average; 0 switches it off.")
    unlabelled: Share = Field(
        0.1,
        description="Share of examples whose label the operator is not told, where it is told any (data.condition).",
    )
    chains: ChainSettings = ChainSettings()
    log_every: PositiveInt = 10
    validate_every: PositiveInt = 1000
    validation_examples: PositiveInt = 500
    patience: NonNegativeInt = Field(
        0,
        description="Validations without a better bound before training stops and the best model is kept; 0: never.",
    )
    checkpoint_every: PositiveInt = 1000
    keep_checkpoints: PositiveInt = 2
    sample_every: NonNegativeInt = Field(
        0, description="Walks between sample grids; 0 draws only the final ones."
    )


class EvaluationSettings(Settings):
    """How a trained operator is evaluated on held-out data."""

    split: Literal["train", "validation", "test"] = "test"
    limit: PositiveInt = Field(1000, description="Largest number of examples.")
    batch_size: PositiveInt = 250
    paths: PositiveInt = Field(1, description="Heating paths per example.")


class SampleSettings(Settings):
    """What a run draws when it ends: annealed samples, and a chain at T = 1 that goes on from them."""

    num: PositiveInt = 64
    extra: NonNegativeInt = Field(0, description="Further steps at T = 1 after annealing.")
    readout: Annotated[Readout, AfterValidator(_known)] = Field(
        "state",
        description="What is drawn of a state: itself, or the mean of a step from it, or of one at T (mean@T).",
    )
    chains: PositiveInt = Field(10, description="Chains shown in the filmstrip.")
    chain_steps: NonNegativeInt = Field(1000, description="Steps of each chain at T = 1.")
    chain_every: PositiveInt = Field(100, description="Steps between two frames of the filmstrip.")


class RunSettings(Settings):
    """Where and how a run executes."""

    seed: NonNegativeInt = 0
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    deterministic: bool = Field(
        False,
        description="Take deterministic algorithms only, which on CUDA are slower and not there for everything.",
    )
    threads: int = Field(0, ge=0, le=1024, description="CPU threads; 0 leaves torch's choice.")
    nproc: PositiveInt = 1


RENAMED: Mapping[str, Mapping[str, str]] = {
    "training": {
        "own_starts": "training.chains.share",
        **{
            f"own_{name}": f"training.chains.{name}"
            for name in ("after", "pool", "steps", "direction", "restart")
        },
    },
    "run": {"loggers": "loggers.NAME"},
}
"""Where former settings are now, by section: paths in the configuration."""
