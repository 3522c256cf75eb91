"""The same network trained and sampled by walkback, by diffusers and by denoising-diffusion-pytorch, on the same work.

    python benchmarks/peers.py [--rows 16] [--side 32] [--repeats 7]

    training    two runs of the U-Net and their backward passes, ROWS images at random levels each; clipping; AdamW
    sampling    ten steps of ROWS images

All have copies of one `UNet2DModel` of diffusers, constant learning rates, and no weight average. They are timed in
turn in one process, in processor time on one thread; compare the ratios. bf16 is autocast for all of them. A package
that cannot be imported is left out with a sentence: `pip install diffusers denoising-diffusion-pytorch`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from walkback.building.devices import Precision, autocast, inference
from walkback.building.preparation import Instances, Prepared, prepare
from walkback.configuration.layering import resolve
from walkback.data.tensors import TensorData
from walkback.extensions.registry import Registry
from walkback.sampling.chains import steps
from walkback.speed.race import Entrant, Work, race
from walkback.support.watch import Silent
from walkback.training.trainer import Trainer

CPU = torch.device("cpu")
LEVELS, SAMPLED, RUNS, RATE = 100, 10, 2, 1e-4
SETTINGS = (
    "operator.network=diffusers-unet",
    f"operator.network.num_train_timesteps={LEVELS}",
    "operator.variance=large",
    f"schedule.num_steps={LEVELS}",
    f"process.draws={RUNS}",
    "training.updates=batch",
    "training.ema=0",
    f"training.lr={RATE}",
)


def prepared(images: Tensor, rows: int) -> Prepared:
    """DDPM with the noise prediction and fixed variance of Ho et al. (2020)."""
    registry = Registry.discover()
    config = resolve(
        registry,
        components={"operator": "ddpm-unet", "data": "digits"},
        overrides=(*SETTINGS, f"training.batch_size={rows}"),
    )
    return prepare(config, registry, instances=Instances(data=TensorData(images)))


def unet_of(work: Prepared) -> nn.Module:
    """A copy of the network of diffusers in the operator."""
    found = [module for module in work.model.operator.modules() if type(module).__name__ == "UNet2DModel"]
    return deepcopy(found[0])


def our_training(work: Prepared, precision: Precision) -> Work:
    trainer = Trainer(
        deepcopy(work.model),
        work.objective,
        work.dataset,
        work.config.training,
        seed=0,
        device=CPU,
        precision=precision,
    )
    return trainer.walk


def our_sampling(work: Prepared, rows: int, precision: Precision) -> Work:
    model, noise = deepcopy(work.model), torch.Generator()
    model.operator.eval().requires_grad_(False)
    levels = model.levels()[::-1][:SAMPLED]

    def sample() -> None:
        with inference(model.operator, CPU, precision):
            for _ in steps(model.operator, model.prior.sample(rows, noise), levels, noise):
                pass

    return sample


def updating(network: nn.Module, loss: Any, precision: Precision) -> Work:
    """The update that both packages document: accumulate, clip, step."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)

    def update() -> None:
        for _ in range(RUNS):
            with autocast(CPU, precision):
                value = loss()
            (value / RUNS).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return update


def diffusers_training(work: Prepared, images: Tensor, precision: Precision) -> Work:
    from diffusers import DDPMScheduler

    unet, scheduler = unet_of(work).train(), DDPMScheduler(num_train_timesteps=LEVELS)

    def loss() -> Tensor:
        noise, times = torch.randn_like(images), torch.randint(LEVELS, (len(images),))
        return mse_loss(unet(scheduler.add_noise(images, noise, times), times).sample.float(), noise)

    return updating(unet, loss, precision)


def diffusers_sampling(work: Prepared, images: Tensor, precision: Precision) -> Work:
    from diffusers import DDPMScheduler

    unet, scheduler = unet_of(work).eval(), DDPMScheduler(num_train_timesteps=LEVELS)

    @torch.no_grad()
    def sample() -> None:
        state = torch.randn_like(images)
        for t in scheduler.timesteps[:SAMPLED]:
            with autocast(CPU, precision):
                noise = unet(state, t).sample
            state = scheduler.step(noise.float(), t, state).prev_sample

    return sample


class Plain(nn.Module):
    """A U-Net of diffusers as denoising-diffusion-pytorch calls one."""

    self_condition = False

    def __init__(self, unet: nn.Module, channels: int) -> None:
        super().__init__()
        self.unet, self.channels, self.out_dim = unet, channels, channels

    def forward(self, state: Tensor, times: Tensor, condition: None = None) -> Tensor:
        noise: Tensor = self.unet(state, times).sample
        return noise.float()


def lucid(work: Prepared, images: Tensor) -> Any:
    from denoising_diffusion_pytorch import GaussianDiffusion

    plain = Plain(unet_of(work), images.shape[1])
    return GaussianDiffusion(plain, image_size=images.shape[-1], timesteps=LEVELS, objective="pred_noise")


def lucid_training(work: Prepared, images: Tensor, precision: Precision) -> Work:
    diffusion = lucid(work, images).train()
    return updating(diffusion, lambda: diffusion((images + 1) / 2), precision)


def lucid_sampling(work: Prepared, images: Tensor, precision: Precision) -> Work:
    diffusion = lucid(work, images).eval()

    @torch.no_grad()
    def sample() -> None:
        state = torch.randn_like(images)
        for t in range(LEVELS - 1, LEVELS - 1 - SAMPLED, -1):
            with autocast(CPU, precision):
                state, _ = diffusion.p_sample(state, t)

    return sample


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (("rows", 16), ("side", 32), ("repeats", 7)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    grey = torch.randint(0, 256, (256, 3, options.side, options.side), dtype=torch.uint8)
    work, images = prepared(grey, options.rows), grey[: options.rows] / 127.5 - 1
    print(f"{work.num_parameters:,} parameters, {options.rows} images of 3×{options.side}×{options.side}")
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    ours = {"training": partial(our_training, work), "sampling": partial(our_sampling, work, options.rows)}
    peers = {
        "diffusers": {"training": diffusers_training, "sampling": diffusers_sampling},
        "denoising-diffusion-pytorch": {"training": lucid_training, "sampling": lucid_sampling},
    }
    for task in ("training", "sampling"):
        entrants = {("walkback", p): Entrant(f"walkback in {p}", partial(ours[task], p)) for p in precisions}
        for name, ways in peers.items():
            for p in precisions:
                build = partial(ways[task], work, images, p)
                entrants[name, p] = Entrant(f"{name} in {p}", build, optional=True)
        race(
            list(entrants.values()),
            warmup=1,
            repeats=options.repeats,
            device=CPU,
            watch=Silent(),
            clock=time.process_time,
        )
        own = entrants["walkback", "fp32"].seconds
        print(f"\n{task}: seconds, and speed relative to walkback in fp32")
        for (name, p), entrant in entrants.items():
            if entrant.lost:
                print(f"  {entrant.lost}")
                continue
            ratio = statistics.median(a / b for a, b in zip(own, entrant.seconds, strict=True))
            print(f"  {name:28s} {p}  {statistics.median(entrant.seconds):7.3f} s  ×{ratio:.2f}")


if __name__ == "__main__":
    main()
