"""The general settings of a run, as frozen, validated records.

Components (operator, schedule, …) have their own options; these settings are common to all of them.
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
    """Base of all settings: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ChainSettings(Settings):
    """Persistent chains at T = 1, from which some walks start; see `training.persistent_chains`."""

    share: _Decay = Field(
        default=0.0,
        description="Share of each minibatch that starts from persistent chains at T = 1 instead of data.",
    )
    after: NonNegativeInt = Field(default=0, description="Walks from data alone before chains are used.")
    pool: PositiveInt = Field(default=1000, description="Number of chains per process.")
    steps: PositiveInt = Field(default=10, description="Steps at T = 1 that a chain takes before each use.")
    direction: Literal["cooling", "heating"] = Field(
        default="cooling",
        description="Kernel of the chains' steps: the operator's cooling kernel, or the heating process.",
    )
    restart: Share = Field(
        default=0.02,
        description="Probability p that a chain restarts from data after each use; it is used 1/p times on average.",
    )


class TrainingSettings(Settings):
    """Settings of training.

    `steps` counts walks: one walk is one minibatch heated through all K levels. `updates = "online"` makes an
    optimizer step after every step of a walk (the paper's choice), `"batch"` one per walk from the gradients of its K
    steps, `"stacked"` the same update computed by one forward pass over all K·B rows (the operator must accept levels
    that differ by row).

    With `minutes`, training ends after that much time or after `steps` walks, whichever comes first. The learning rate
    follows the limit that is closer to being reached (`optimization.share_done`).
    """

    steps: NonNegativeInt = Field(10_000, description="Walks to take, one minibatch each.")
    minutes: PositiveFloat | None = Field(
        None,
        description="Minutes to train, without validation and drawing; training.steps remains a second limit.",
    )
    initial: str | None = Field(
        None,
        description="Checkpoint whose operator training starts from, with its weights and fitted buffers.",
    )
    batch_size: PositiveInt = Field(
        100, description="Number of walks per minibatch; the random numbers of a run depend on it."
    )
    updates: Literal["online", "batch", "stacked"] = Field(
        "batch",
        description="One update after every step, one per walk from its K steps, or the same from one forward pass.",
    )
    lr: PositiveFloat = Field(1e-4, description="Learning rate of AdamW.")
    lr_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="Learning rate after the warmup: constant, or decaying to 0."
    )
    warmup: NonNegativeInt = Field(
        0, description="Number of walks over which the learning rate rises from 0."
    )
    betas: tuple[_Decay, _Decay] = Field((0.9, 0.999), description="Decay rates of AdamW's two moments.")
    weight_decay: NonNegativeFloat = Field(0.0, description="Weight decay of AdamW.")
    clip: NonNegativeFloat = Field(1.0, description="Maximum gradient norm; 0 does not clip gradients.")
    on_nonfinite: Literal["stop", "skip", "rollback"] = Field(
        "stop",
        description="What to do if a state, a loss or a gradient is not finite: end the run, skip the minibatch, or go "
        "back to the last good checkpoint with a lower rate.",
    )
    nonfinite_limit: PositiveInt = Field(
        10, description="Maximum number of skipped minibatches, or of returns to an earlier checkpoint."
    )
    rollback_rate: _Factor = Field(
        0.5, description="Factor applied to the learning rate each time that training goes back."
    )
    ema: _Decay = Field(0.999, description="Decay of the weight average; 0 disables it.")
    unlabelled: Share = Field(
        0.1,
        description="Share of examples whose label is hidden in class-conditional training (data.condition).",
    )
    chains: ChainSettings = Field(ChainSettings(), description="Walks that start from persistent chains.")
    log_every: PositiveInt = Field(10, description="Number of walks between two lines of metrics.")
    validate_every: PositiveInt = Field(1000, description="Number of walks between two validations.")
    validation_examples: PositiveInt = Field(500, description="Maximum number of examples in a validation.")
    patience: NonNegativeInt = Field(
        0,
        description="Validations without improvement before training stops and keeps the best model; 0 never stops.",
    )
    checkpoint_every: PositiveInt = Field(1000, description="Number of walks between two checkpoints.")
    keep_checkpoints: PositiveInt = Field(2, description="Number of checkpoints to keep.")
    sample_every: NonNegativeInt = Field(
        0, description="Number of walks between sample grids; 0 draws only the final ones."
    )


class EvaluationSettings(Settings):
    """Settings of the evaluation on held-out data."""

    split: Literal["train", "validation", "test"] = Field("test", description="Split to evaluate on.")
    limit: PositiveInt = Field(1000, description="Maximum number of examples.")
    batch_size: PositiveInt = Field(250, description="Number of examples computed at a time.")
    paths: PositiveInt = Field(1, description="Heating paths per example.")


class SampleSettings(Settings):
    """Settings of the pictures at the end of a run: annealed samples, and chains at T = 1 started from them."""

    pictures: bool = Field(True, description="Whether to draw pictures.")
    num: PositiveInt = Field(64, description="Number of samples.")
    extra: NonNegativeInt = Field(0, description="Steps at T = 1 after annealing.")
    readout: Annotated[Readout, AfterValidator(_known)] = Field(
        "state",
        description="What to draw: states, the mean of a step from them, or of a step at temperature T (mean@T).",
    )
    chains: PositiveInt = Field(10, description="Number of chains in the filmstrip.")
    chain_steps: NonNegativeInt = Field(1000, description="Number of steps of each chain at T = 1.")
    chain_every: PositiveInt = Field(100, description="Number of steps between two frames of the filmstrip.")


class RunSettings(Settings):
    """Settings of the execution of a run."""

    seed: NonNegativeInt = Field(0, description="Seed of all randomness.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="Device to compute on.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "fp32",
        description="Precision of the network; auto is bf16 on devices with bf16 units if the loss agrees, else fp32.",
    )
    compile: bool = Field(False, description="Whether to use torch.compile.")
    deterministic: bool = Field(
        False,
        description="Use only deterministic algorithms, which on CUDA are slower and do not exist for all operations.",
    )
    threads: int = Field(0, ge=0, le=1024, description="Number of CPU threads; 0 keeps torch's choice.")
    nproc: PositiveInt = Field(1, description="Number of processes that train together, one per device.")
    shard: bool = Field(
        False,
        description="Whether processes divide weights, gradients and moments among them (FSDP2), for networks that do "
        "not fit one device; if not, each process has all of them.",
    )
    sync_batch_norm: bool = Field(
        False,
        description="Whether batch norm takes the statistics of training over the rows of all processes.",
    )


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
"""New paths of former settings, by section."""
