"""The wrapped U-Net obeys the laws of networks, learns labels, and trains, samples and is diagnosed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from walkback_diffusers.network import DiffusersUNet

import walkback as wb
from walkback.errors import ConfigurationError
from walkback.networks import Ports, Told
from walkback.state import Space
from walkback.testing import Case, Check, checks

NETWORK = Case.of("diffusers-unet", {"channels": [8, 16]}, spaces=[Space((1, 4, 4)), Space((3, 2, 6))])


@pytest.mark.parametrize("check", checks("network"), ids=str)
def test_the_network_conforms(check: Check) -> None:
    check(NETWORK)


@pytest.mark.parametrize("shape", [(2,), (1, 7, 8), (1, 8, 7)])
def test_states_that_it_cannot_halve_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="multiples of 2"):
        DiffusersUNet(channels=(8, 16)).build(Ports(shape, heads=1))


def test_the_temperature_and_the_head_matter_once_it_has_learned() -> None:
    torch.manual_seed(0)
    module = DiffusersUNet(channels=(8, 16)).build(Ports((1, 4, 4), heads=2)).eval()
    state = torch.randn(3, 1, 4, 4)
    assert all(not head.any() for head in module(state, Told(torch.zeros(1))))
    torch.nn.init.normal_(module.unet.conv_out.weight)
    cold, hot = (torch.stack(module(state, Told(torch.tensor([level])))) for level in (0.0, 1.0))
    assert cold.shape == (2, 3, 1, 4, 4)
    assert not cold[0].allclose(cold[1])
    assert not cold.allclose(hot)


SMALL = {
    "operator.network": "diffusers-unet",
    "operator.network.channels": [8, 16],
    "training.batch_size": 8,
    "training.validation_examples": 10,
    "evaluation.limit": 10,
}


def test_the_script_trains_samples_and_diagnoses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    monkeypatch.chdir(tmp_path)
    import train

    train.main(walks=2, steps=50, **SMALL)
    told = capsys.readouterr().out
    assert "bound on -log p" in told
    assert "drift" in told
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")
    sys.modules.pop("train")


def test_a_model_of_labels_is_read_back(tmp_path: Path) -> None:
    settings = {**SMALL, "data.condition": "label"}
    model = wb.train("gaussian", recipe="digits", data="digits", steps=1, settings=settings, progress=False)
    read = wb.load(model.save(tmp_path / "model.safetensors"))
    drawn = [wb.sample(each, 4, levels=8, label=7).states for each in (model, read)]
    assert drawn[0].equal(drawn[1])
