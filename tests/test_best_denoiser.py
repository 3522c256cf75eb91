"""What ε, x and v learn from Gaussian data under known noise is the best mean, in closed form.

One factor per level, direction and replicate (`tests.toy.diffused`); 16 replicates that never meet. |z| < 4.5 with 15
degrees of freedom: chance alone exceeds it with probability 4e-4 a figure, at fixed seeds.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np
import pytest
import torch
from tests.toy.diffused import SHARE, VARIANCES, Scaled, best_factors
from tests.toy.exact import Fixed, gaussian
from tests.toy.linear import Endless
from tests.toy.statistics import LIMIT
from tests.toy.trainers import CPU
from torch import Tensor, nn

from walkback.configuration.settings import TrainingSettings
from walkback.model import Model
from walkback.noising import Form
from walkback.schedules import levels_from
from walkback.state import Space
from walkback.training.trainer import Trainer
from walkback_paper.denoising import Prediction
from walkback_paper.gaussian import Gaussian
from walkback_processes.denoising import DenoisingLoss
from walkback_processes.diffusion import DiffusionProcess

REPLICATES = 16
LEVELS = levels_from([1.0, 4.0, 20.0, 100.0])
LOG2_TIMES = torch.tensor([level.elapsed + level.temperature for level in LEVELS]).double().log2()


@final
class Table(nn.Module):
    """A factor per level, replicate and direction, for the level of the time that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.full((len(LEVELS), REPLICATES, 3), 0.5, dtype=torch.float64))

    def forward(self, log2_time: Tensor) -> Tensor:
        return self.table[(log2_time[:, None] - LOG2_TIMES).abs().argmin(1)]


@pytest.mark.parametrize("form", ["exploding", "preserving"])
@pytest.mark.parametrize("mean", ["epsilon", "x", "v"])
def test_the_learned_mean_is_the_best_one(form: Form, mean: Prediction) -> None:
    space = Space((REPLICATES, 3))
    operator = Gaussian(space, Scaled(Table), mean=mean, diffusion=form, variance="fixed", sigma_share=SHARE)
    deviations = torch.from_numpy(np.sqrt(VARIANCES)).expand(REPLICATES, 3)
    operator.fit_data(torch.stack([deviations, -deviations]))
    operator.double()
    process = DiffusionProcess(noise=form).double()
    process.fit_operator(operator)
    prior = gaussian(torch.zeros_like(deviations), torch.ones_like(deviations))
    model = Model(operator, Fixed(LEVELS), process, prior)
    walks = 150
    settings = TrainingSettings(
        steps=walks,
        batch_size=256,
        updates="stacked",
        lr=0.05,
        lr_schedule="cosine",
        betas=(0.9, 0.99),
        clip=0.0,
        ema=0.9,
    )
    data = Endless(np.diag(np.sqrt(VARIANCES)), REPLICATES, 1000)
    worker = Trainer(model, DenoisingLoss(), data, settings, seed=0, device=CPU)
    for _ in range(walks):
        worker.walk()
    found = dict(worker.averaged_model.operator.named_parameters())
    (table,) = found.values()
    error = table.std(1) / math.sqrt(REPLICATES)
    z = (table.mean(1) - best_factors(form, mean)(LOG2_TIMES)) / error
    assert z.abs().max() < LIMIT
    assert error.max() < 0.01
