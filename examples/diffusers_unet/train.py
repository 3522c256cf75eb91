"""Train a Gaussian operator with the U-Net of diffusers on 8×8 digits, draw samples, and diagnose its chain.

python train.py [WALKS]
"""

from __future__ import annotations

import sys
from typing import Any

import walkback as wb
from walkback.report import number

SETTINGS = {
    "operator.network": "diffusers-unet",
    "operator.network.channels": [16, 32],
    "training.batch_size": 32,
    "training.warmup": 30,
}


def main(walks: int = 400, steps: int = 300, **settings: Any) -> None:
    """Print the bound, write samples.png, and compare chains after `steps` steps at T = 1 with held-out digits."""
    model = wb.train("gaussian", recipe="digits", data="digits", steps=walks, settings=SETTINGS | settings)
    print(f"bound on -log p: {model.bound}")
    wb.sample(model, 64, extra=steps).save("samples.png", overwrite=True)
    for figure in wb.diagnose("stationarity", model, chains=64, steps=steps).figures:
        print(f"{figure.name} {number(figure)} {figure.unit}: {figure.meaning}")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
