"""Pipelines of diffusers as checkpoints: every step against the scheduler's own, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.program import walkback
from tests.toy.pipelines import LEVELS, imported, in_double, pipeline, saved
from torch import Tensor, nn

import walkback as wb
from walkback.errors import ConfigurationError
from walkback.kernels import NormalKernel
from walkback.model import Model
from walkback.networks import Ports, Told
from walkback_diffusers.network import Details, DiffusersUNet

diffusers = pytest.importorskip("diffusers", reason="needs walkback[diffusers]")

SCALE = 255 / 512
"""States are ½ + SCALE x."""
PREDICTIONS = ("epsilon", "sample", "v_prediction")
VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range")
SCHEDULES: Mapping[str, Mapping[str, Any]] = {
    "linear": {},
    "scaled_linear": {"clip_sample_range": 2.0},
    "squaredcos_cap_v2": {},
    "sigmoid": {"clip_sample": False},
    "trained": {"trained_betas": [0.01 * (1 + step) for step in range(LEVELS)]},
}


def steps_of_scheduler(made: Any, x: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of the step of timestep t at x, from `step` and `_get_variance`."""
    scheduler = in_double(made.scheduler)
    kind = scheduler.config.variance_type
    with torch.no_grad():
        output = made.unet(x, t).sample.double()
    learned = output[:, 1:] if kind.startswith("learned") else None
    # What `_get_variance` returns is a variance, its logarithm or its root. `step` of 'fixed_large_log' takes the root
    # of a logarithm: its mean is read with another type.
    found = scheduler._get_variance(t, predicted_variance=learned)
    convert: Mapping[str, Callable[[Tensor], Tensor]] = {
        "fixed_small_log": torch.square,
        "fixed_large_log": torch.exp,
        "learned_range": torch.exp,
    }
    return mean_of_step(scheduler, output[:, :1], t, x.double()), convert.get(kind, torch.Tensor.clone)(found)


def mean_of_step(scheduler: Any, output: Tensor, t: int, x: Tensor) -> Tensor:
    """The mean of `step`: what it returns where its noise is 0, which all types of variance share."""
    kind, scheduler.variance_type = scheduler.variance_type, "fixed_small"
    config = scheduler._internal_dict
    scheduler._internal_dict = type(config)({**config, "variance_type": "fixed_small"})
    noise = torch.zeros_like(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: noise)
        mean: Tensor = scheduler.step(output, t, x).prev_sample
    scheduler.variance_type, scheduler._internal_dict = kind, config
    return mean


def require_the_same_steps(made: Any, model: Model, timesteps: range | list[int]) -> None:
    levels = model.levels()
    noise = torch.Generator().manual_seed(1)
    for t in timesteps:
        x = torch.randn(2, 1, 8, 8, generator=noise)
        level = levels[t]
        kernel = model.operator(0.5 + SCALE * x, level).cooling(level)
        kernel = kernel if t else kernel.normal  # of the discretized last step
        assert isinstance(kernel, NormalKernel)
        mean, variance = steps_of_scheduler(made, x, t)
        torch.testing.assert_close((kernel.mean.double() - 0.5) / SCALE, mean, rtol=1e-5, atol=1e-5)
        if t:  # the scheduler's first step has no noise
            torch.testing.assert_close(
                kernel.variance.double().expand_as(mean) / SCALE**2,
                variance.expand_as(mean),
                rtol=1e-5,
                atol=0,
            )


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_step_is_the_schedulers(prediction: str, variance: str, tmp_path: Path) -> None:
    made = pipeline(prediction_type=prediction, variance_type=variance)
    require_the_same_steps(made, imported(made, tmp_path), range(LEVELS))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_is_the_schedulers(schedule: str, tmp_path: Path) -> None:
    own = {} if schedule == "trained" else {"beta_schedule": schedule}
    made = pipeline(**own, **SCHEDULES[schedule])
    require_the_same_steps(made, imported(made, tmp_path), range(LEVELS))


def test_a_thousand_timesteps_are_told_apart(tmp_path: Path) -> None:
    made = pipeline(num_train_timesteps=1000, clip_sample=False)
    model = imported(made, tmp_path)
    require_the_same_steps(made, model, [0, 1, 2, 500, 998, 999])
    backbone: Any = model.operator.get_submodule("network")
    times = torch.tensor([level.elapsed + level.temperature for level in model.levels()])
    assert backbone.timestep(Told(times.log2())).tolist() == list(range(1000))


# --- what cannot be imported


def edited(folder: Path, file: str, **changes: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


INDEX, UNET, SCHEDULER = "model_index.json", "unet/config.json", "scheduler/scheduler_config.json"
REFUSED: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "another pipeline": (INDEX, {"_class_name": "DDIMPipeline"}, "expected 'DDPMPipeline'"),
    "code of its own": (INDEX, {"unet": ["evil", "UNet2DModel"]}, r"unet = \['evil', 'UNet2DModel'\]"),
    "another scheduler": (INDEX, {"scheduler": ["diffusers", "DDIMScheduler"]}, "DDPMScheduler"),
    "thresholding": (SCHEDULER, {"thresholding": True}, "thresholding = true, which bounds"),
    "zero snr": (SCHEDULER, {"rescale_betas_zero_snr": True}, "makes the last step forget"),
    "unknown schedule": (SCHEDULER, {"beta_schedule": "\x1b[31mred"}, r"cannot be built.*\\u001b\[31mred"),
    "β of 1": (SCHEDULER, {"beta_end": 1.5}, "values of β from 0.0001 to 1.5"),
    "other length": (SCHEDULER, {"trained_betas": [0.1, 0.2]}, "Got 2 values of β"),
    "endless": (SCHEDULER, {"num_train_timesteps": 10**9}, "num_train_timesteps = 1000000000"),
    "text for a number": (SCHEDULER, {"beta_start": "0.1"}, "beta_start = '0.1'"),
    "no variance": (SCHEDULER, {"variance_type": "learned_range"}, "1 output channels, expected 2"),
    "classes": (UNET, {"num_class_embeds": 10}, "conditioned on classes"),
    "size": (UNET, {"sample_size": None}, "sample_size = None"),
    "odd size": (UNET, {"sample_size": 7}, "multiples of 2"),
    "skip blocks": (UNET, {"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "down_block_types"),
    "lengths": (UNET, {"up_block_types": ["UpBlock2D"]}, "same number of"),
    "huge": (UNET, {"block_out_channels": [8192, 16384]}, "larger model than the tensors in the file"),
    "other weights": (UNET, {"block_out_channels": [8, 24]}, r"weights do not fit.*F32 of shape"),
    "more layers": (UNET, {"layers_per_block": 2}, "weights do not fit"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(pipeline(), tmp_path_factory.mktemp("saved") / "pipeline")


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_represented_is_refused_in_one_sentence(
    case: str, folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    file, changes, message = REFUSED[case]
    edited(copy, file, **changes)
    require_refused(copy, tmp_path, message)


def require_refused(source: Path, tmp_path: Path, message: str) -> None:
    out = tmp_path / "out.safetensors"
    done = walkback("import", "diffusers", source, "-o", out)
    assert done.code in (1, 2), done.err
    assert done.err.startswith("error: ")
    assert re.search(message, " ".join(done.err.split())), done.err
    assert not out.exists()


def test_pickles_and_broken_files_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-100])
    require_refused(copy, tmp_path, "cannot be read: .*SafetensorError")
    weights.rename(weights.with_suffix(".bin"))
    require_refused(copy, tmp_path, "a pickle and may run any code")
    weights.with_suffix(".bin").rename(copy / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    require_refused(copy, tmp_path, r"without diffusion_pytorch_model.safetensors \(.*fp16.safetensors\)")
    (copy / INDEX).write_text("[" * 100_000)
    require_refused(copy, tmp_path, "cannot be read as JSON")
    (copy / INDEX).unlink()
    require_refused(copy, tmp_path, "There is no file")


def test_early_pipelines_have_one_folder_and_other_names(folder: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (INDEX, UNET, SCHEDULER):
        shutil.copy(folder / file, flat)
    tensors = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in tensors.items():
        for new, old in former.items():
            name = name.replace(f".{new}.", f".{old}.")
        renamed[name] = tensor
    assert renamed.keys() != tensors.keys()
    save_file(renamed, flat / "diffusion_pytorch_model.safetensors")
    files = [tmp_path / "new.safetensors", tmp_path / "old.safetensors"]
    for source, out in zip((folder, flat), files, strict=True):
        done = walkback("import", "diffusers", source, "-o", out, "--json")
        assert done.document() == {
            "file": str(out),
            "shape": [1, 8, 8],
            "levels": LEVELS,
            "mean": "epsilon",
            "variance": "fixed",
            "gray_levels": 256,
        }
    assert files[0].read_bytes() == files[1].read_bytes()


def test_without_diffusers_the_command_says_how_to_install_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    require_refused(folder, tmp_path, r"pip install 'walkback\[diffusers\]'")


# --- the network


@pytest.mark.parametrize("shape", [(2,), (1, 7, 8), (1, 8, 7)])
def test_states_that_the_network_cannot_halve_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="multiples of 2"):
        DiffusersUNet(block_out_channels=(8, 16)).build(Ports(shape, heads=1))


def test_the_temperature_and_the_head_matter_once_the_network_has_learned() -> None:
    torch.manual_seed(0)
    module = DiffusersUNet(block_out_channels=(8, 16)).build(Ports((1, 4, 4), heads=2)).eval()
    state = torch.randn(3, 1, 4, 4)
    assert all(not head.any() for head in module(state, Told(torch.zeros(1))))
    nn.init.normal_(module.unet.get_submodule("conv_out").weight)  # type: ignore[arg-type]
    cold, hot = (torch.stack(module(state, Told(torch.tensor([level])))) for level in (0.0, 1.0))
    assert cold.shape == (2, 3, 1, 4, 4)
    assert not cold[0].allclose(cold[1])
    assert not cold.allclose(hot)


@pytest.mark.parametrize("block", ["", "Attn", "Resnet", "K"])
def test_all_blocks_that_are_offered_run(block: str) -> None:
    down, up = ("sampleBlock2D" if block == "Resnet" else "Block2D",) * 2
    names = (f"{block}Down{down}", f"{block}Up{up}")
    network = DiffusersUNet(
        block_out_channels=(32,),
        down_block_types=(names[0],),  # type: ignore[arg-type]
        up_block_types=(names[1],),  # type: ignore[arg-type]
        num_train_timesteps=3,
        details=Details(time_embedding_type="learned"),
    )
    module = network.build(Ports((1, 4, 4), heads=1))
    (output,) = module(torch.zeros(2, 1, 4, 4), Told(torch.tensor([0.0, 1.0])))
    assert output.shape == (2, 1, 4, 4)


def test_labels_are_told_and_read_back(tmp_path: Path) -> None:
    settings = {
        "operator.network": "diffusers-unet",
        "operator.network.block_out_channels": [8, 16],
        "training.batch_size": 8,
        "training.validation_examples": 10,
        "evaluation.limit": 10,
        "data.condition": "label",
    }
    model = wb.train("gaussian", recipe="digits", data="digits", steps=1, settings=settings, progress=False)
    read = wb.load(model.save(tmp_path / "model.safetensors"))
    drawn = [wb.sample(each, 4, levels=14, label=7).states for each in (model, read)]
    assert drawn[0].equal(drawn[1])
