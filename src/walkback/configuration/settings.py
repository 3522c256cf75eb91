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
_Factor: TypeAlias = Annotated[float, Field(gt=0.0, le=1.0)]
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

    steps: NonNegativeInt = Field(10_000, description="Walks to take, one minibatch each.")
    minutes: PositiveFloat | None = Field(
        None,
        description="Minutes to train for, validation and drawing not counted; training.steps is then a second limit.",
    )
    batch_size: PositiveInt = Field(
        100, description="Walks side by side; the random numbers of a run depend on it."
    )
    updates: Literal["online", "batch", "stacked"] = Field(
        "batch",
        description="One update after every step, one per walk from its K steps, or the same from one forward.",
    )
    lr: PositiveFloat = Field(1e-4, description="Learning rate of AdamW.")
    lr_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="Learning rate after the warmup: as it is, or falling to 0."
    )
    warmup: NonNegativeInt = Field(0, description="Walks over which the learning rate rises from 0.")
    betas: tuple[_Decay, _Decay] = Field((0.9, 0.999), description="Decay of AdamW's two moments.")
    weight_decay: NonNegativeFloat = Field(0.0, description="Weight decay of AdamW.")
    clip: NonNegativeFloat = Field(1.0, description="Largest gradient norm; 0 leaves gradients as they are.")
    on_nonfinite: Literal["stop", "skip", "rollback"] = Field(
        "stop",
        description="What to do if a state, a loss or a gradient is not finite: end the run, skip the minibatch, or go "
        "back to the last good checkpoint with a lower rate.",
    )
    nonfinite_limit: PositiveInt = Field(
        10, description="Largest number of minibatches that are skipped, or of times that training goes back."
    )
    rollback_rate: _Factor = Field(
        0.5, description="Factor on the learning rate each time that training goes back."
    )
    ema: _Decay = Field(0.999, description="Decay of the weight average; 0 switches it off.")
    unlabelled: Share = Field(
        0.1,
        description="Share of examples whose label the operator is not told, where it is told any (data.condition).",
    )
    chains: ChainSettings = Field(ChainSettings(), description="Walks that start from persistent chains.")
    log_every: PositiveInt = Field(10, description="Walks between two lines of metrics.")
    validate_every: PositiveInt = Field(1000, description="Walks between two validations.")
    validation_examples: PositiveInt = Field(500, description="Largest number of examples of a validation.")
    patience: NonNegativeInt = Field(
        0,
        description="Validations without a better bound before training stops and the best model is kept; 0: never.",
    )
    checkpoint_every: PositiveInt = Field(1000, description="Walks between two checkpoints.")
    keep_checkpoints: PositiveInt = Field(2, description="Number of checkpoints that are kept.")
    sample_every: NonNegativeInt = Field(
        0, description="Walks between sample grids; 0 draws only the final ones."
    )


class EvaluationSettings(Settings):
    """How a trained operator is evaluated on held-out data."""

    split: Literal["train", "validation", "test"] = Field("test", description="Split that is evaluated on.")
    limit: PositiveInt = Field(1000, description="Largest number of examples.")
    batch_size: PositiveInt = Field(250, description="Examples computed at a time.")
    paths: PositiveInt = Field(1, description="Heating paths per example.")


class SampleSettings(Settings):
    """What a run draws when it ends: annealed samples, and a chain at T = 1 that goes on from them."""

    pictures: bool = Field(True, description="Whether pictures are drawn at all.")
    num: PositiveInt = Field(64, description="Number of samples.")
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

    seed: NonNegativeInt = Field(0, description="Seed of everything random.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="Where to compute.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Precision of the network; auto is bf16 on CUDA devices that have it."
    )
    compile: bool = Field(False, description="Whether to use torch.compile.")
    deterministic: bool = Field(
        False,
        description="Take deterministic algorithms only, which on CUDA are slower and not there for everything.",
    )
    threads: int = Field(0, ge=0, le=1024, description="CPU threads; 0 leaves torch's choice.")
    nproc: PositiveInt = Field(1, description="Processes that train together, one per device.")


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
