"""Configuration: layers, schemas, error sentences, and files that read back exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, Field
from tests.toy.plugins import plugin, toy_registry

from walkback.component import KINDS, Component, DatasetSource, Kind, Recipe
from walkback.configuration.components import component_table
from walkback.configuration.config import RunConfig, component
from walkback.configuration.layering import resolve, resolve_data
from walkback.configuration.schema import component_options, validate
from walkback.errors import ConfigurationError, PluginError
from walkback.extensions.registry import Registry
from walkback.hookspecs import hookimpl

MODULE = "toy_plugin.components"
CHOICES: Mapping[str, Mapping[str, Any]] = {
    "schedule": {"name": "doubling"},
    "process": {"name": "tied"},
    "objective": {"name": "loss"},
}


class Toys:
    """Hooks of a plugin; `@staticmethod` as pluggy sees the class itself."""

    @staticmethod
    @hookimpl
    def walkback_operators() -> Iterator[Component]:
        gaussian = {
            "prior": {"name": "normal", "scale": 3.0, "nonsense": 1},
            "training": {"lr": 0.5, "nonsense": 1},
        }
        bernoulli = {"prior": {"name": "plain"}, "data": {"binarize": "stochastic"}}
        yield Component("gaussian", f"{MODULE}:Gaussian", defaults={**CHOICES, **gaussian})
        yield Component("bernoulli", f"{MODULE}:Bernoulli", defaults={**CHOICES, **bernoulli})
        yield Component("silent", f"{MODULE}:Bernoulli")
        yield Component("wrong-default", f"{MODULE}:WrongDefault", defaults=CHOICES)
        yield Component("unreadable", f"{MODULE}:UnreadableAnnotation", defaults=CHOICES)
        yield Component("called-name", f"{MODULE}:OptionCalledName", defaults=CHOICES)

    @staticmethod
    @hookimpl
    def walkback_schedules() -> Iterator[Component]:
        yield Component("doubling", f"{MODULE}:Doubling")
        yield Component("listed", f"{MODULE}:Listed")

    @staticmethod
    @hookimpl
    def walkback_priors() -> Iterator[Component]:
        yield Component("normal", f"{MODULE}:Normal")
        yield Component("plain", f"{MODULE}:Plain")

    @staticmethod
    @hookimpl
    def walkback_processes() -> Iterator[Component]:
        yield Component("tied", f"{MODULE}:Plain")
        yield Component("quick", f"{MODULE}:Plain", defaults={"training": {"lr": 0.125, "nonsense": 1}})

    @staticmethod
    @hookimpl
    def walkback_objectives() -> Iterator[Component]:
        yield Component("loss", f"{MODULE}:Plain")

    @staticmethod
    @hookimpl
    def walkback_datasets() -> Iterator[Component]:
        points = {"training": {"lr": 0.25, "batch_size": 11}}
        yield Component("points", f"{MODULE}:Points", defaults=points)
        yield Component("spiral", f"{MODULE}:Spiral")

    @staticmethod
    @hookimpl
    def walkback_dataset_source(source: str) -> DatasetSource | None:
        known = "/" in source and not source.startswith("unheard")
        return DatasetSource("points", {"path": source, "noise": 0.5}) if known else None

    @staticmethod
    @hookimpl
    def walkback_recipes() -> Iterator[Recipe]:
        yield Recipe("dots", "toy_plugin:recipes/dots.toml", default=True)
        yield Recipe("torn", "toy_plugin:recipes/torn.toml")


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with toy_registry(Toys) as found:
        yield found


def chosen(config: RunConfig) -> dict[str, str]:
    return {name: getattr(config, name).name for name in ("operator", "schedule", "prior", "process", "data")}


# --- layers


def test_nothing_asked_for_means_the_default_recipe(registry: Registry) -> None:
    config = resolve(registry)
    assert config.recipe == "dots"
    assert config.operator.options["sigma"] == 0.2
    assert config.data.options["noise"] == 0.05
    assert (config.schedule.name, config.schedule.options) == ("doubling", {"factor": 2.0, "n": 5})
    assert config.training.steps == 7


def test_later_layers_win(registry: Registry) -> None:
    assert resolve(registry).training.batch_size == 11  # from the data component
    assert resolve(registry).training.lr == 0.5  # the operator component over the data component
    quick = {"process": "quick"}
    assert resolve(registry, components=quick).training.lr == 0.125  # the process over the operator
    assert resolve(registry, components=quick, overrides=["training.lr=2"]).training.lr == 2.0
    assert resolve(registry, overrides=["training.lr=2"]).training.lr == 2.0
    assert resolve(registry, overrides=["training.steps=1", "training.steps=9"]).training.steps == 9


def test_operator_alone_takes_only_data_from_the_default_recipe(registry: Registry) -> None:
    config = resolve(registry, components={"operator": "gaussian", "data": None})
    assert config.recipe is None
    assert config.operator.options["sigma"] == 0.1
    assert (config.data.name, config.data.options["noise"]) == ("points", 0.05)
    assert (config.schedule.options["n"], config.training.steps) == (3, 10_000)


def test_data_alone_takes_only_the_operator_from_the_default_recipe(registry: Registry) -> None:
    config = resolve(registry, components={"data": "spiral"})
    assert (config.operator.name, config.operator.options["sigma"]) == ("gaussian", 0.2)
    assert (config.schedule.options["n"], config.training.steps) == (3, 10_000)


def test_operator_and_data_take_nothing_from_the_default_recipe(registry: Registry) -> None:
    config = resolve(registry, components={"operator": "gaussian", "data": "points"})
    assert (config.operator.options["sigma"], config.data.options["noise"]) == (0.1, 0.0)


def test_a_name_in_set_is_a_flag_and_wins(registry: Registry) -> None:
    asked = {"operator": "gaussian", "data": "points"}
    config = resolve(registry, components=asked, overrides=["operator.name=bernoulli", "operator.width=3"])
    assert (config.operator.name, config.operator.options) == ("bernoulli", {"width": 3})


def test_components_choose_the_rest(registry: Registry) -> None:
    config = resolve(registry, components={"operator": "gaussian"})
    assert chosen(config) | {"data": ""} == {
        "operator": "gaussian",
        "schedule": "doubling",
        "prior": "normal",
        "process": "tied",
        "data": "",
    }
    assert config.prior.options == {"scale": 3.0}


def test_proposed_options_hold_for_the_proposed_component_only(registry: Registry) -> None:
    config = resolve(registry, components={"operator": "gaussian", "prior": "plain"})
    assert (config.prior.name, config.prior.options) == ("plain", {})


def test_proposed_options_apply_where_the_section_has_them(registry: Registry) -> None:
    points = resolve(registry, components={"operator": "bernoulli", "data": "points"})
    spiral = resolve(registry, components={"operator": "bernoulli", "data": "spiral"})
    assert points.data.options["binarize"] == "stochastic"
    assert spiral.data.options == {"turns": 1.5}
    told = {"operator": "bernoulli", "data": "points"}
    assert (
        resolve(registry, components=told, overrides=["data.binarize=none"]).data.options["binarize"]
        == "none"
    )


def test_another_component_drops_the_options_of_the_recipe(registry: Registry) -> None:
    other = resolve(
        registry, recipe="dots", components={"schedule": "listed"}, overrides=["schedule.levels=[1,2]"]
    )
    same = resolve(registry, recipe="dots", components={"schedule": "doubling", "operator": "toys:gaussian"})
    assert other.schedule.options == {"levels": (1.0, 2.0)}
    assert (same.schedule.options["n"], same.operator.options["sigma"]) == (5, 0.2)


def test_open_component_names_the_flag(registry: Registry) -> None:
    with pytest.raises(
        ConfigurationError, match=r"No schedule was chosen: .*--schedule NAME; available: doubling, listed"
    ):
        resolve(registry, components={"operator": "silent", "data": "points"})
    with pytest.raises(ConfigurationError, match=r"No operator was chosen: .*--operator NAME; but no plugin"):
        resolve(Registry([]))


def test_components_mean_the_names_of_their_own_distribution(registry: Registry) -> None:
    both = Registry([plugin("toys", Toys), plugin("rivals", Toys)])
    config = resolve(both, components={"operator": "rivals:gaussian", "data": "toys:points"})
    assert chosen(config) == {
        "operator": "rivals:gaussian",
        "schedule": "rivals:doubling",
        "prior": "rivals:normal",
        "process": "rivals:tied",
        "data": "toys:points",
    }
    assert RunConfig.from_toml(config.to_toml(), both) == config


# --- recipes


def test_recipe_file(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(resolve(registry, overrides=["training.steps=3"]).to_toml())
    config = resolve(registry, recipe=str(file))
    assert (config.training.steps, config.recipe) == (3, str(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[operator\n", r"not valid TOML: .*line 1"),
        ("[opperator]\n", r"Unknown section 'opperator' in .*did you mean 'operator'"),
        ("training = 3\n", r"has training = 3, expected a table \[training\]"),
        ("[operator]\nname = 3\n", r"operator.name: got 3, expected the name of a component"),
        ("[operator]\nname = 'gausian'\n", r"did you mean 'gaussian'"),
    ],
)
def test_bad_recipe_file(registry: Registry, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        resolve(registry, recipe=str(file))


def test_missing_recipes(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"No such recipe file: 'gone\.toml'"):
        resolve(registry, recipe="gone.toml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        resolve(registry, recipe=f"{tmp_path}/")
    with pytest.raises(ConfigurationError, match=r"Unknown recipe 'dotz' \(did you mean 'dots'"):
        resolve(registry, recipe="dotz")


def test_torn_recipe_is_the_fault_of_its_plugin(registry: Registry) -> None:
    with pytest.raises(PluginError, match=r"'toys:torn' is not valid TOML"):
        resolve(registry, recipe="torn")


# --- data sources


def test_data_source_by_hub_id(registry: Registry) -> None:
    config = resolve_data(registry, "owner/name")
    assert (config.name, config.options["path"], config.options["noise"]) == (
        "points",
        Path("owner/name"),
        0.5,
    )
    assert resolve_data(registry, "owner/name", ["data.noise=1"]).options["noise"] == 1.0


def test_data_source_by_path_keeps_the_recipe_of_the_same_component(
    registry: Registry, tmp_path: Path
) -> None:
    config = resolve(
        registry, recipe="dots", components={"data": str(tmp_path)}, overrides=["data.binarize=none"]
    )
    assert config.data.options == {"noise": 0.5, "binarize": "none", "path": tmp_path}


@pytest.mark.parametrize(
    "source", ["./gone", "../gone", "~/gone", "/gone", "a/b/c", "gone.parquet", "~nobody-at-all/x"]
)
def test_missing_path(registry: Registry, source: str) -> None:
    with pytest.raises(ConfigurationError, match="No such path"):
        resolve_data(registry, source)


@pytest.mark.parametrize("source", ["piont", "unheard/of", "a\0b", "x" * 5000])
def test_unknown_source(registry: Registry, source: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"Unknown dataset .*available: points, spiral; an existing path"
    ):
        resolve_data(registry, source)


# --- options


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("operator.sigma=-1", "operator.sigma: got -1, expected a number greater than 0."),
        ("operator.sigma=abc", 'operator.sigma: got "abc", expected a number.'),
        ("operator.sigma=true", "operator.sigma: got true, expected a number."),
        ("operator.sigma=nan", "operator.sigma: got NaN, expected a finite number."),
        ("operator.mean=mid", "operator.mean: got \"mid\", expected 'mix' or 'preconditioned'."),
        ("operator.widths=64", "operator.widths: got 64, expected a list."),
        ("operator.widths=[64, 1.5]", "operator.widths[1]: got 1.5, expected an integer."),
        ("operator.widths=[0]", "operator.widths[0]: got 0, expected a number greater than 0."),
        ("operator.blend=2", "operator.blend: got 2, expected a number less than 1 or 'learned'."),
        ("operator.norm=1", "operator.norm: got 1, expected true or false."),
        ("operator.label=3", "operator.label: got 3, expected a string."),
        ("training.steps=1.0", "training.steps: got 1.0, expected an integer."),
        ("training.steps=true", "training.steps: got true, expected an integer."),
        ("training.betas=[0.9]", "training.betas: got [0.9], expected more items."),
        ("training.betas=[0.9, 1.0]", "training.betas[1]: got 1.0, expected a number less than 1."),
        (
            "operator.sgima=1",
            "Unknown option 'operator.sgima' (did you mean 'operator.sigma'?); the options are: sigma,",
        ),
        ("process.speed=1", "Unknown option 'process.speed'; there are no options."),
        ("training.step=1", "Unknown option 'training.step' (did you mean 'training.steps'?)"),
        ("trianing.steps=1", "Unknown section 'trianing' (did you mean 'training'?)"),
        ("training.steps", "Got --set 'training.steps', expected --set SECTION.OPTION=VALUE."),
        ("steps=3", "Got --set 'steps=3', expected --set SECTION.OPTION=VALUE."),
        ("schedule.name=listed", "schedule.levels is missing: give it with --set schedule.levels=VALUE."),
        ("operator.name=7", "operator.name: got 7, expected the name"),
        ("run.device=gpu", 'run.device: got "gpu", expected a string like (auto|cpu|cuda'),
        ("loggers.bord=true", "Unknown logger 'bord'; no plugin offers any logger."),
        ('run.loggers=["bord"]', "Unknown option 'run.loggers': it is 'loggers.NAME' now."),
    ],
)
def test_error_sentences(registry: Registry, override: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(registry, overrides=[override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"Got {value}, an even number, expected an odd one.")
    return value


def _prime(value: int) -> int:
    if value != 2:
        raise AssertionError("Expected the\neven prime")  # as `assert` does, which pytest changes
    return value


class Checked:
    """Options with checks of the component's own."""

    def __init__(
        self,
        *,
        size: Annotated[int, AfterValidator(_odd)] = 3,
        prime: Annotated[int, AfterValidator(_prime)] = 2,
        pair: Annotated[tuple[int, ...], Field(min_length=2, max_length=3)] = (1, 2),
        either: Annotated[int, AfterValidator(_odd)] | Literal["none"] = 3,
    ) -> None:
        """Nothing else."""


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("size", 4, "part.size: got 4, an even number, expected an odd one."),
        ("prime", 3, "part.prime: got 3, expected the even prime."),
        ("pair", [1], "part.pair: got [1], expected at least 2 items."),
        ("pair", [1, 2, 3, 4], "part.pair: got [1,2,3,4], expected at most 3 items."),
        ("either", 6, "part.either: got 6, an even number, expected an odd one or 'none'."),
    ],
)
def test_checks_of_a_component_speak_for_themselves(option: str, value: object, message: str) -> None:
    """Nothing of the library that calls them is said."""
    with pytest.raises(ConfigurationError) as caught:
        validate("part", Checked, {option: value})
    assert str(caught.value) == message


def test_several_errors_are_counted(registry: Registry) -> None:
    with pytest.raises(ConfigurationError, match=r"operator\.sigma: .* \(and 2 more at fault\)\."):
        resolve(registry, overrides=["operator.sigma=-1", "operator.norm=1", "operator.label=1"])


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        ("wrong-default", r"The default of operator\.size: got 0, expected a number greater than 0"),
        ("unreadable", r"toy_plugin\.components\.UnreadableAnnotation cannot be read: .*DoesNotExist"),
        ("called-name", r"an option cannot be called 'name'"),
    ],
)
def test_class_at_fault_is_a_plugin_error(registry: Registry, operator: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        resolve(registry, components={"operator": operator, "prior": "plain"})


def test_options_have_the_types_of_the_annotations(registry: Registry) -> None:
    options = ["operator.widths=[8, 8]", "operator.sigma=1", "operator.blend=learned", "operator.cutoff=2"]
    operator = resolve(registry, overrides=[*options, "data.path=/tmp/x"]).operator.options
    assert operator == {
        "sigma": 1.0,
        "mean": "mix",
        "widths": (8, 8),
        "blend": "learned",
        "cutoff": 2.0,
        "norm": False,
        "label": "",
        "copy": 1,
    }
    assert type(operator["sigma"]) is float


# --- files


def numbers(low: float, high: float, **options: Any) -> st.SearchStrategy[float]:
    """Numbers that an option takes: their squares are in single precision."""
    return st.floats(low, high, **options).filter(lambda number: number == 0 or abs(number) >= 1e-18)


OVERRIDES = {
    "operator.sigma": numbers(1e-18, 1e18) | st.integers(1, 9),
    "operator.mean": st.sampled_from(["mix", "preconditioned"]),
    "operator.widths": st.lists(st.integers(1, 10**9)),
    "operator.blend": numbers(0, 1, exclude_min=True, exclude_max=True) | st.just("learned"),
    "operator.cutoff": numbers(-1e18, 1e18),
    "operator.norm": st.booleans(),
    "operator.label": st.text(),
    "schedule.factor": st.integers(2, 5) | st.floats(1.5, 2),
    "data.path": st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    "training.betas": st.tuples(numbers(0, 1, exclude_max=True), numbers(0, 1, exclude_max=True)),
    "run.device": st.sampled_from(["auto", "cpu", "cuda", "cuda:3"]),
}
"""Values by option; their numbers, lists and booleans are TOML when they are written as JSON."""


@settings(max_examples=200, deadline=None)
@given(values=st.fixed_dictionaries({}, optional=OVERRIDES))
def test_files_read_back_exactly(registry: Registry, values: dict[str, Any]) -> None:
    overrides = [f"{path}={as_toml(value)}" for path, value in values.items()]
    config = resolve(registry, overrides=overrides)
    again = RunConfig.from_toml(config.to_toml(), registry)
    assert again == config
    assert again.to_toml() == config.to_toml()
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False)), registry) == config
    for path, value in values.items():
        section, option = path.split(".")
        expected = list(value) if isinstance(value, tuple) else value
        if path != "data.path":
            assert config.to_dict()[section][option] == expected


def as_toml(value: Any) -> str:
    """An independent writer of TOML: every character that could matter in a string is escaped."""
    if isinstance(value, str):
        return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in value) + '"'
    return json.dumps(value)


def test_toml_leaves_out_none(registry: Registry) -> None:
    config = resolve(registry)
    assert config.operator.options["cutoff"] is None
    assert "cutoff" not in tomllib.loads(config.to_toml())["operator"]
    assert config.to_dict()["operator"]["cutoff"] is None


def test_one_section_reads_back(registry: Registry) -> None:
    operator = resolve(registry).operator
    assert component(registry, "operator", component_table(operator)) == operator


@pytest.mark.parametrize("section", ["operator", "data"])
def test_file_without_a_component_is_refused(registry: Registry, section: str) -> None:
    document = resolve(registry).to_dict()
    del document[section]
    with pytest.raises(ConfigurationError, match=rf"Section \[{section}\] has no name"):
        RunConfig.from_dict(document, registry)


# --- what walkback itself ships


@pytest.fixture(scope="module")
def shipped() -> Registry:
    registry = Registry.discover(enabled=False)
    if not registry.components("operator"):
        pytest.skip("walkback is not installed, so its plugins are not either")
    return registry


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_components_have_readable_options(shipped: Registry, kind: Kind) -> None:
    for registered in shipped.components(kind):
        for name, option in component_options(shipped.load(registered)).model_fields.items():
            assert option.annotation is not None, (registered.qualified_name, name)


def test_shipped_default_recipe_reads_back(shipped: Registry) -> None:
    config = resolve(shipped)
    assert config.recipe == "digits"
    assert RunConfig.from_toml(config.to_toml(), shipped) == config


@pytest.mark.parametrize("data", ["mnist", "digits"])
def test_shipped_operators_choose_everything_else(shipped: Registry, data: str) -> None:
    for registered in shipped.components("operator"):
        options = component_options(shipped.load(registered)).model_fields.values()
        if any(option.is_required() for option in options):
            continue  # a chain that is known: its matrix cannot be chosen for the user
        config = resolve(shipped, components={"operator": registered.reference, "data": data})
        assert RunConfig.from_dict(config.to_dict(), shipped) == config
        binary = registered.spec.name.startswith("bernoulli")
        assert config.data.options["binarize"] == ("stochastic" if binary else "none")


def test_importing_the_configuration_needs_no_torch() -> None:
    heavy = "{'torch', 'datasets', 'numpy'}"
    code = f"import sys, walkback.configuration.layering; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False).returncode == 0
