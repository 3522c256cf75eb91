"""Inpainting: what is kept stays bit for bit, what is not follows the law that clamping gives it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import final

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from tests.program import Done, cells, digest, run, walkback
from tests.test_sampling import TracerOperator
from tests.test_tuple_state import mixed_model
from tests.toy.exact import Pair, Toy, filled, gaussian, model, self_consistent
from tests.toy.learned import blind_bernoulli, seeing_gaussian
from tests.toy.statistics import LIMIT, normal, rng, z_of_variance, z_score
from torch import Tensor

from walkback.building.assembly import load_model
from walkback.building.data_of_model import data_for, first_examples
from walkback.data import DataInfo
from walkback.errors import ConfigurationError, WalkbackError
from walkback.extensions.registry import Registry
from walkback.kernels import NormalKernel
from walkback.model import Model
from walkback.operators import Conditional, Latent, TransitionOperator
from walkback.pictures.inpainted import read_mask
from walkback.sampling import COLD, anneal, last
from walkback.sampling.inpainting import fill_in, fill_steps, inpaint
from walkback.sampling.readout import read_out
from walkback.schedules import Level, Levels, levels_from
from walkback.state import Context, Space, State, StateSpace, leaves
from walkback.support.readouts import Readout
from walkback.support.seeding import generator

LEVELS = levels_from([1.0, 1.0, 2.0, 4.0])
MASK = torch.tensor([True, False, True, False])
PRIOR = gaussian(torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64))


def bits_of(values: Tensor) -> bytes:
    return values.contiguous().numpy().tobytes()


# --- the mathematics


@pytest.mark.parametrize("levels", [LEVELS, ()])
@pytest.mark.parametrize("operator", [seeing_gaussian(4).eval(), blind_bernoulli(4)])
def test_what_is_kept_is_kept_bit_for_bit_in_every_state(
    operator: TransitionOperator, levels: Levels
) -> None:
    known = (normal(6, 4) > 0).double()
    known[0, 0] = -0.0  # a copy by arithmetic would lose the sign
    states = [
        leaves(s)[0] for s in inpaint(model(operator, PRIOR, LEVELS), known, MASK, levels, rng(), extra=3)
    ]
    assert len(states) == 1 + len(levels) + 3
    for state in states:
        assert bits_of(state[:, MASK]) == bits_of(known[:, MASK])
    free = torch.stack(states)[:, :, ~MASK]
    assert len({bits_of(state) for state in free}) > 1


def test_it_cools_through_the_levels_and_then_stays_cold() -> None:
    operator = TracerOperator()
    list(inpaint(model(operator, PRIOR, LEVELS), normal(3, 4), MASK, LEVELS, rng(), extra=2))
    assert operator.seen == operator.cooled == [*reversed(LEVELS), COLD, COLD]


def test_without_levels_it_starts_from_the_corrupted_data() -> None:
    """What is known, and the prior's draw for the rest."""
    known, noise = normal(3, 4), leaves(PRIOR.sample(3, rng(7)))[0]
    first = leaves(next(inpaint(model(TracerOperator(), PRIOR, LEVELS), known, MASK, (), rng(7), extra=1)))[0]
    assert first.equal(torch.where(MASK, known, noise))


def test_what_is_not_kept_of_the_data_does_not_matter() -> None:
    system, known = model(seeing_gaussian(4).eval(), PRIOR, LEVELS), normal(3, 4)
    hidden = known.clone()
    hidden[:, ~MASK] = math.nan
    ends = [leaves(last(inpaint(system, data, MASK, LEVELS, rng()))) for data in (known, hidden)]
    assert ends[0][0].equal(ends[1][0])


def test_what_is_kept_matters() -> None:
    system, known = model(seeing_gaussian(4).eval(), PRIOR, LEVELS), normal(3, 4)
    ends = [leaves(last(inpaint(system, data, MASK, LEVELS, rng())))[0] for data in (known, known + 1)]
    assert not ends[0][:, ~MASK].equal(ends[1][:, ~MASK])


def test_independent_dimensions_do_not_notice_the_others() -> None:
    """The rest is that of plain annealing with the same noise, bit for bit."""
    operator = self_consistent(torch.tensor([1.0, 0.5, 0.2, 2.0], dtype=torch.float64), sigma=0.3)
    known = normal(5, 4)
    filled_in = list(inpaint(model(operator, PRIOR, LEVELS), known, MASK, LEVELS, rng(2)))
    plain = list(anneal(operator, PRIOR, LEVELS, 5, rng(2)))
    for clamped, free in zip(filled_in, plain, strict=True):
        assert leaves(clamped)[0][:, ~MASK].equal(leaves(free)[0][:, ~MASK])


def test_a_linear_operator_follows_the_clamped_recursion() -> None:
    """s' = A s + √(v T) ε with x_1 = c: x_2' = A_21 c + A_22 x_2 + √(v T) ε, from its prior on; |z| < 4.5."""
    a, v, c, num = torch.tensor([[0.5, 0.3], [0.4, 0.7]], dtype=torch.float64), 0.2, 1.5, 20_000

    def conditional(state: Tensor) -> Conditional:
        return Pair(lambda level: NormalKernel(state @ a.T, filled(v * float(level.temperature), state)))

    prior = gaussian(
        torch.tensor([0.0, -1.0], dtype=torch.float64), torch.tensor([1.0, 3.0], dtype=torch.float64)
    )
    known = torch.full((num, 2), c, dtype=torch.float64)
    mask = torch.tensor([True, False])
    mean, variance = -1.0, 3.0
    temperatures = [None, 4.0, 2.0, 1.0, 1.0, *[1.0] * 30]
    states = inpaint(model(Toy(conditional), prior, LEVELS), known, mask, LEVELS, rng(4), extra=30)
    for state, temperature in zip(states, temperatures, strict=True):
        if temperature is not None:
            mean, variance = 0.4 * c + 0.7 * mean, 0.49 * variance + v * temperature
        rest = leaves(state)[0][:, 1]
        assert abs(z_score(rest, mean)) < LIMIT
        assert abs(z_of_variance(rest, variance)) < LIMIT
    assert mean == pytest.approx(0.4 * c / 0.3, abs=1e-4)  # the fixed point


@pytest.mark.parametrize("readout", ["state", "mean"])
def test_batches_are_filled_one_after_another_and_keep_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, readout: Readout
) -> None:
    """Seven rows, three at a time, each batch with noise of its own; a mean of the last step would change all."""
    monkeypatch.setattr("walkback.sampling.inpainting.BATCH", 3)
    system, known = model(self_consistent(torch.ones(4).double(), 0.5), PRIOR, LEVELS), normal(7, 4).double()
    told: list[int] = []
    found = fill_in(
        system,
        known,
        MASK,
        LEVELS,
        extra=2,
        readout=readout,
        seed=3,
        on_step=told.append,
    )
    assert found[:, MASK].equal(known[:, MASK])
    each = len(LEVELS) + 2
    assert fill_steps(7, LEVELS, 2) == 3 * each == told[-1]
    assert told == [number * each + step for number in range(3) for step in range(each + 1)]
    for number, part in enumerate(torch.split(known, 3)):
        noise = generator("cpu", 3, "inpaint", number)
        end = last(inpaint(system, part, MASK, LEVELS, noise, extra=2))
        shown = read_out(system.operator, end, readout)
        assert found[3 * number :][: len(part)][:, ~MASK].equal(shown[:, ~MASK])
        assert bool(shown[:, MASK].eq(part[:, MASK]).all()) == (readout == "state")


def test_only_the_visible_leaf_of_a_tuple_state_is_held() -> None:
    system = mixed_model()
    known = (normal(5, 2, 3) > 0).float()
    mask = torch.tensor([[True, False, True], [False, True, False]])
    for state in inpaint(system, known, mask, system.levels(), rng(), extra=2):
        bits, _ = leaves(state)
        assert bits[:, mask].equal(known[:, mask])
    # Where nothing is kept, both leaves are those of plain annealing.
    free = inpaint(system, known, torch.zeros(2, 3, dtype=torch.bool), system.levels(), rng(1))
    plain = anneal(system.operator, system.prior, system.levels(), 5, rng(1))
    for state, expected in zip(free, plain, strict=True):
        assert all(a.equal(b) for a, b in zip(leaves(state), leaves(expected), strict=True))


@final
class Computed(TransitionOperator, Latent):
    """Shows the sum of its leaves."""

    @property
    def max_temperature(self) -> float:
        return 2.0

    @property
    def state_space(self) -> StateSpace:
        return Space((4,)), Space((4,))

    def initial_state(self, data: Tensor, generator: torch.Generator) -> tuple[State, Tensor]:
        return (data, torch.zeros_like(data)), data.new_zeros(len(data))

    def visible(self, state: State) -> Tensor:
        first, second = leaves(state)
        return first + second

    def forward(self, state: State, level: Level, context: Context = None) -> Conditional:
        raise AssertionError("nothing can be held")


def test_data_that_are_computed_from_the_state_cannot_be_held() -> None:
    class Two:
        def sample(self, num: int, generator: torch.Generator) -> State:
            return torch.zeros(num, 4), torch.zeros(num, 4)

    system = Model(Computed(), None, None, Two())  # type: ignore[arg-type]
    with pytest.raises(WalkbackError, match=r"Computed\.visible computes"):
        next(inpaint(system, torch.zeros(3, 4), MASK, (), rng()))


def test_states_carry_no_graph_and_the_global_generator_is_left_alone() -> None:
    system = model(seeing_gaussian(4), PRIOR, LEVELS)
    before = torch.get_rng_state()
    for state in inpaint(system, normal(3, 4), MASK, LEVELS, rng()):
        assert not leaves(state)[0].requires_grad
        assert torch.is_grad_enabled()
    assert torch.get_rng_state().equal(before)


# --- masks


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("top", ["###", "...", "..."]),
        ("bottom", ["...", "###", "###"]),
        ("left", ["#..", "#..", "#.."]),
        ("right", [".##", ".##", ".##"]),
    ],
)
def test_halves(keep: str, expected: list[str]) -> None:
    mask = read_mask(keep, DataInfo("a", (1, 3, 3)))
    assert ["".join(".#"[int(cell)] for cell in row) for row in mask] == expected


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_white_is_kept_and_black_is_filled(tmp_path: Path, mode: str) -> None:
    pixels = np.zeros((4, 6), np.uint8)
    pixels[1, 2:5] = 255
    Image.fromarray(pixels).convert(mode).save(tmp_path / "mask.png")
    mask = read_mask(str(tmp_path / "mask.png"), DataInfo("a", (3, 4, 6)))
    assert mask.equal(torch.from_numpy(pixels > 0))


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    info = DataInfo("a", (1, 4, 6))
    for name, pixels, words in (
        ("size", np.zeros((6, 4), np.uint8), "4 × 6 pixels, not 6 × 4"),
        ("white", np.full((4, 6), 255, np.uint8), "keeps every pixel"),
        ("black", np.zeros((4, 6), np.uint8), "keeps no pixel"),
        ("deep", np.zeros((4, 6), np.uint16), "8 bits per channel"),
    ):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        with pytest.raises(ConfigurationError, match=re.escape(words)):
            read_mask(str(tmp_path / f"{name}.png"), info)
    (tmp_path / "bad.png").write_bytes((tmp_path / "size.png").read_bytes()[:40])
    for path, words in (
        ("bad.png", "cannot be read"),
        ("none.png", "no file"),
        (".", "top, bottom, left, right"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            read_mask(str(tmp_path / path), info)
    with pytest.raises(ConfigurationError, match="Only images"):
        read_mask("top", DataInfo("a", (2,)))


# --- the command


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of digits, 10 annealing steps."""
    directory = tmp_path_factory.mktemp("digits") / "a"
    assert run(directory).code == 0
    return directory / "final.safetensors"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint of convolutions on a folder of colour images of 16 × 16, and the folder."""
    place = tmp_path_factory.mktemp("photos")
    folder = place / "images"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (80, 20, 20, 3), np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    options = ("--operator", "gaussian-conv", "--data", folder, "--set", "data.size=16")
    small = (
        "--set",
        "operator.network.hidden=16",
        "--set",
        "operator.network.channels=[4, 8]",
        "--steps",
        "2",
        "--batch-size",
        "4",
    )
    quick = (
        "--set",
        "samples.num=4",
        "--set",
        "samples.chain_steps=0",
        "--set",
        "schedule.max_temperature=64",
    )
    done = walkback("run", *options, *small, *quick, "--out", place / "run")
    assert done.code == 0, done.err
    return place / "run" / "final.safetensors", folder


def fill(checkpoint: Path, out: Path, *options: str | Path) -> Done:
    """Fill four images."""
    return walkback("inpaint", checkpoint, "--num", "4", "--extra", "3", "--out", out, *options)


def arrays(checkpoint: Path, out: Path, *options: str | Path) -> dict[str, Tensor]:
    done = fill(checkpoint, out, *options)
    assert done.code == 0, done.err
    with np.load(out) as file:
        return {name: torch.from_numpy(file[name]) for name in file if name != "protocol"}


def check(found: dict[str, Tensor], mask: Tensor) -> None:
    """The kept part is the original's bit for bit, the other one is not."""
    assert found["mask"].equal(mask)
    assert found.keys() == {"masked", "filled", "original", "mask"}
    kept = mask.expand_as(found["original"])
    assert (
        bits_of(found["filled"][kept]) == bits_of(found["masked"][kept]) == bits_of(found["original"][kept])
    )
    assert (found["masked"][~kept] == 0.5).all()
    assert (found["filled"][~kept] != found["original"][~kept]).float().mean() > 0.99
    assert found["filled"].isfinite().all()


@pytest.mark.parametrize("keep", ["top", "bottom", "left", "right"])
@pytest.mark.parametrize("option", ["--anneal", "--no-anneal"])
def test_digits_are_filled(digits: Path, tmp_path: Path, keep: str, option: str) -> None:
    mask = torch.zeros(8, 8, dtype=torch.bool)
    {"top": mask[:4], "bottom": mask[4:], "left": mask[:, :4], "right": mask[:, 4:]}[keep].fill_(True)
    check(arrays(digits, tmp_path / "a.npz", "--keep", keep, option), mask)


def test_the_originals_are_the_first_held_out_examples(digits: Path, tmp_path: Path) -> None:
    loaded = load_model(digits, Registry.discover(), torch.device("cpu"))
    dataset = data_for(loaded, Registry.discover())
    for split in ("test", "validation"):
        found = arrays(digits, tmp_path / f"{split}.npz", "--keep", "top", "--split", split)
        rows = dataset.examples(split)[:4].float()  # type: ignore[arg-type]
        # x = (v + u) / 17 with 0 ≤ u < 1, up to rounding of float32.
        assert (
            (17 * found["original"] - rows).clamp(0, 1) - (17 * found["original"] - rows)
        ).abs().max() < 1e-5
        assert first_examples(dataset, split, 4, 0).states.equal(found["original"])  # type: ignore[arg-type]


def test_a_drawn_mask_and_colour_images(photos: tuple[Path, Path], tmp_path: Path) -> None:
    pixels = np.zeros((16, 16), np.uint8)
    pixels[3:9, 5:] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    found = arrays(photos[0], tmp_path / "a.npz", "--keep", tmp_path / "mask.png", "--split", "train")
    assert found["filled"].shape == (4, 3, 16, 16)
    check(found, torch.from_numpy(pixels > 0))


def test_other_data_of_the_same_kind_are_filled(photos: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, folder = photos
    options = ("--keep", "top", "--data", folder, "--set", "size=16", "--split", "train")
    found = arrays(checkpoint, tmp_path / "a.npz", *options)
    assert found["original"].equal(
        arrays(checkpoint, tmp_path / "b.npz", "--keep", "top", "--split", "train")["original"]
    )


def test_the_picture_has_rows_of_masked_filled_and_original(digits: Path, tmp_path: Path) -> None:
    found = arrays(digits, tmp_path / "a.npz", "--keep", "left")
    assert fill(digits, tmp_path / "a.png", "--keep", "left").code == 0
    picture = cells(tmp_path / "a.png", 3, 4)
    scale = picture.shape[2] // 8
    drawn = torch.from_numpy(picture[:, :, ::scale, ::scale, 0].copy()).float()
    for row, name in zip(drawn, ("masked", "filled", "original"), strict=True):
        assert row.equal((256 * found[name][:, 0]).floor().clamp(0, 255))
    with Image.open(tmp_path / "a.png") as image:
        protocol = json.loads(image.info["walkback"])
    expected = {"checkpoint": digits.name, "data": "digits", "split": "test", "keep": "left", "extra": 3}
    assert {name: protocol[name] for name in expected} == expected
    with np.load(tmp_path / "a.npz") as file:
        assert json.loads(str(file["protocol"])) == protocol


def test_many_images_go_on_in_another_band(digits: Path, tmp_path: Path) -> None:
    done = walkback(
        "inpaint", digits, "--keep", "top", "--num", "20", "--extra", "1", "--out", tmp_path / "a.png"
    )
    assert done.code == 0
    picture = cells(tmp_path / "a.png", 6, 16)
    assert (picture[3:, 4:] == 255).all()
    assert not (picture[3:, :4] == 255).all()


def test_all_formats_hold_the_same_and_equal_seeds_give_equal_bytes(digits: Path, tmp_path: Path) -> None:
    found = arrays(digits, tmp_path / "a.npz", "--keep", "top", "--seed", "3")
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        for end in (".safetensors", ".png", ".npz"):
            done = fill(digits, tmp_path / f"{name}{end}", "--keep", "top", "--seed", seed, "--force")
            assert done.code == 0
    for end in (".safetensors", ".png", ".npz"):
        first, second, other = (digest(tmp_path / f"{name}{end}") for name in "abc")
        assert first == second != other
    tensors = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert tensors.keys() == found.keys()
    assert all(tensors[name].equal(found[name]) for name in found)


def test_json_is_one_document(digits: Path, tmp_path: Path) -> None:
    document = fill(digits, tmp_path / "a.png", "--keep", "top", "--json").document()
    assert document["file"] == str(tmp_path / "a.png")
    assert (document["num"], document["annealing_steps"], document["extra"], document["seed"]) == (
        4,
        14,
        3,
        0,
    )
    assert (
        fill(digits, tmp_path / "b.png", "--keep", "top", "--no-anneal", "--json").document()[
            "annealing_steps"
        ]
        == 0
    )


def refused(done: Done, *words: str) -> None:
    """Exit code 2, nothing on stdout, and one sentence with these words."""
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\.\n", done.err), done.err
    assert [word for word in words if word not in done.err] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--keep", "middle"), ["'middle'", "top, bottom, left, right"]),
        (("--keep", "no.png"), ["no.png", "no file"]),
        (("--keep", "top", "--data", "mog"), ["shape (2,)", "(1, 8, 8)"]),
        (
            ("--keep", "top", "--data", "digits", "--set", "binarize=threshold"),
            ["binary support", "real support"],
        ),
        (("--keep", "top", "--set", "size=3"), ["--set size=3"]),
        (("--keep", "top", "--no-anneal", "--extra", "0"), ["--extra"]),
        (("--keep", "top", "--num", "100000"), ["100000", "test split of digits"]),
        (("--keep", "top", "--out", "a.gif"), [".png, .npz, .safetensors"]),
        (("--keep", "top", "--out", "no/a.png"), ["directory"]),
        (("--keep", "top", "--data", "no-such-data"), ["no-such-data"]),
    ],
)
def test_what_cannot_be_filled_is_refused(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(walkback("inpaint", digits, *options), *words)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept_unless_forced(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("a picture of value")
    refused(fill(digits, tmp_path / "a.png", "--keep", "top"), "exists", "--force")
    assert (tmp_path / "a.png").read_text() == "a picture of value"
    assert fill(digits, tmp_path / "a.png", "--keep", "top", "--force").code == 0


def test_points_are_refused(tmp_path: Path) -> None:
    assert run(tmp_path / "a", "--data", "mog", steps=1).code == 0
    refused(fill(tmp_path / "a" / "final.safetensors", tmp_path / "a.png", "--keep", "top"), "Only images")
