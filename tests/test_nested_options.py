"""Options that nest: records and components among the options of a component, sections of components by name."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.toy.plugins import plugin, toy_registry

from walkback.building.assembly import build_part
from walkback.component import Component, Kind, Recipe
from walkback.configuration.components import ComponentConfig, Options, component_table, configure
from walkback.configuration.config import RunConfig, component
from walkback.configuration.layering import resolve
from walkback.configuration.options import REQUIRED, options_of
from walkback.configuration.renaming import moved, moved_component
from walkback.configuration.resuming import ResumeRequest, resumed_config
from walkback.configuration.schema import validate
from walkback.errors import ConfigurationError, PluginError
from walkback.extensions.loader import PluginStatus, load_plugin
from walkback.extensions.registry import Registry
from walkback.hookspecs import hookimpl

PARTS, PLAIN = "toy_plugin.nested", "toy_plugin.components"
REST = {
    "schedule": {"name": "doubling"},
    "prior": {"name": "plain"},
    "process": {"name": "plain"},
    "objective": {"name": "plain"},
}


class Parts:
    """Hooks of a plugin whose operators are made of parts."""

    @staticmethod
    @hookimpl
    def walkback_operators() -> Iterator[Component]:
        renamed = {"width": "network.width", "high": "clip.high", "power": "law.power"}
        yield Component("composed", f"{PARTS}:Composed", defaults=REST, renamed=renamed)
        preset = {"network": {"name": "bare", "width": 16}, "law": "power", "sigma": 0.2}
        yield Component("composed-bare", f"{PARTS}:Composed", defaults=REST, preset=preset, renamed=renamed)
        yield Component(
            "composed-wrapped",
            f"{PARTS}:Composed",
            defaults=REST,
            preset={"network": {"name": "wrapped", "inner": {"name": "bare", "width": 4}}},
        )
        yield Component("misguided", f"{PARTS}:Misguided", defaults=REST)

    @staticmethod
    @hookimpl
    def walkback_networks() -> Iterator[Component]:
        yield Component("bare", f"{PARTS}:Bare")
        yield Component("wrapped", f"{PARTS}:Wrapped")

    @staticmethod
    @hookimpl
    def walkback_temperature_laws() -> Iterator[Component]:
        yield Component("power", f"{PARTS}:Power")

    @staticmethod
    @hookimpl
    def walkback_schedules() -> Iterator[Component]:
        yield Component("doubling", f"{PLAIN}:Doubling")

    @staticmethod
    @hookimpl
    def walkback_priors() -> Iterator[Component]:
        yield Component("plain", f"{PLAIN}:Plain")

    @staticmethod
    @hookimpl
    def walkback_processes() -> Iterator[Component]:
        yield Component("plain", f"{PLAIN}:Plain")

    @staticmethod
    @hookimpl
    def walkback_objectives() -> Iterator[Component]:
        yield Component("plain", f"{PLAIN}:Plain")

    @staticmethod
    @hookimpl
    def walkback_datasets() -> Iterator[Component]:
        wide = {"operator": {"network": {"width": 99, "nonsense": 1}, "clip": {"low": -1.0}}}
        yield Component("points", f"{PLAIN}:Points")
        yield Component("wide", f"{PLAIN}:Points", defaults=wide)

    @staticmethod
    @hookimpl
    def walkback_loggers() -> Iterator[Component]:
        yield Component("recorder", f"{PARTS}:Recorder")
        yield Component("a.b", f"{PARTS}:Recorder")

    @staticmethod
    @hookimpl
    def walkback_metrics() -> Iterator[Component]:
        yield Component("count", f"{PARTS}:Count")

    @staticmethod
    @hookimpl
    def walkback_recipes() -> Iterator[Recipe]:
        yield Recipe("parts", "toy_plugin:recipes/parts.toml", default=True)


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with toy_registry(Parts) as found:
        yield found


def operator(registry: Registry, name: str, *overrides: str, data: str = "points") -> dict[str, Any]:
    """The table of an operator that is asked for by name."""
    config = resolve(registry, components={"operator": name, "data": data}, overrides=overrides)
    return config.to_dict()["operator"]


# --- presets and layers


def test_a_preset_is_below_everything(registry: Registry) -> None:
    found = operator(registry, "composed-bare")
    assert found["network"] == {"name": "bare", "width": 16, "widths": []}
    assert found["law"] == {"name": "power", "power": 1.0}
    assert (found["sigma"], found["clip"]) == (
        0.2,
        {"low": 0.0, "high": 2.0, "inner": {"depth": 1, "label": None}},
    )
    assert operator(registry, "composed-bare", "operator.sigma=0.5")["sigma"] == 0.5


def test_deep_options_merge_while_the_name_stays(registry: Registry) -> None:
    found = operator(
        registry, "composed-bare", "operator.network.widths=[1, 2]", "operator.clip.inner.depth=3"
    )
    assert found["network"] == {"name": "bare", "width": 16, "widths": [1, 2]}
    assert found["clip"] == {"low": 0.0, "high": 2.0, "inner": {"depth": 3, "label": None}}
    same = operator(registry, "composed-bare", "operator.network=bare", "operator.network.widths=[1]")
    assert same["network"] == {"name": "bare", "width": 16, "widths": [1]}


def test_another_name_drops_the_options_of_the_former(registry: Registry) -> None:
    found = operator(registry, "composed-wrapped", "operator.network=bare")
    assert found["network"] == {"name": "bare", "width": 8, "widths": []}
    table = operator(registry, "composed-wrapped", 'operator.network={name="bare", width=3}')
    assert table["network"] == {"name": "bare", "width": 3, "widths": []}
    back = operator(
        registry,
        "composed-bare",
        "operator.network.name=wrapped",
        "operator.network.inner=bare",
    )
    assert back["network"] == {
        "name": "wrapped",
        "share": 0.5,
        "inner": {"name": "bare", "width": 8, "widths": []},
    }


def test_options_are_those_of_the_layer_that_names_the_component(registry: Registry, tmp_path: Path) -> None:
    """A recipe sets options of the preset's network without naming it; another network does not get them."""
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        "[operator]\nname = 'composed-wrapped'\n[operator.network]\nshare = 0.25\n[data]\nname = 'points'\n"
    )
    kept = resolve(registry, recipe=str(recipe)).to_dict()["operator"]["network"]
    assert kept == {"name": "wrapped", "share": 0.25, "inner": {"name": "bare", "width": 4, "widths": []}}
    other = resolve(registry, recipe=str(recipe), overrides=["operator.network=bare"])
    assert other.to_dict()["operator"]["network"] == {"name": "bare", "width": 8, "widths": []}


def test_components_inside_components(registry: Registry) -> None:
    found = operator(
        registry, "composed-wrapped", "operator.network.inner.width=2", "operator.network.share=1"
    )
    assert found["network"] == {
        "name": "wrapped",
        "inner": {"name": "bare", "width": 2, "widths": []},
        "share": 1.0,
    }


def test_lists_of_components(registry: Registry) -> None:
    found = operator(registry, "composed-bare", 'operator.more=["bare", {name="bare", width=1}]')
    assert [part["width"] for part in found["more"]] == [8, 1]


def test_proposals_count_where_the_component_has_the_option(registry: Registry) -> None:
    found = operator(registry, "composed-bare", data="wide")
    assert found["network"] == {"name": "bare", "width": 99, "widths": []}
    assert found["clip"]["low"] == -1.0
    assert operator(registry, "composed-wrapped", data="wide")["network"]["share"] == 0.5
    with pytest.raises(ConfigurationError, match=r"operator\.network is missing"):
        operator(registry, "composed", data="wide")


def test_the_recipe_is_merged_too(registry: Registry) -> None:
    config = resolve(registry, overrides=["operator.network.widths=[7]"])
    assert config.recipe == "parts"
    assert config.to_dict()["operator"]["network"] == {"name": "bare", "width": 32, "widths": [7]}
    assert config.to_dict()["operator"]["needy"] == {"rate": 0.5, "kind": "b"}


def test_names_inside_mean_those_of_their_own_distribution(registry: Registry) -> None:
    both = Registry([plugin("toys", Parts), plugin("rivals", Parts)])
    config = resolve(both, components={"operator": "rivals:composed-bare", "data": "toys:points"})
    assert config.to_dict()["operator"]["network"]["name"] == "rivals:bare"
    assert RunConfig.from_toml(config.to_toml(), both) == config
    with pytest.raises(ConfigurationError, match=r"network 'bare' is offered by 'toys' and 'rivals'"):
        resolve(
            both,
            components={"operator": "rivals:composed-bare", "data": "toys:points"},
            overrides=["operator.network=bare"],
        )


# --- what is refused


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "operator.network.widht=3",
            "Unknown option 'operator.network.widht' (did you mean 'operator.network.width'?); the options are: "
            "width, widths (see walkback plugins show bare).",
        ),
        ("operator.network.width=0", "operator.network.width: got 0, expected a number greater than 0."),
        (
            "operator.network.widths=[1, 0]",
            "operator.network.widths[1]: got 0, expected a number greater than 0.",
        ),
        ("operator.network=bear", "Unknown network 'bear' (did you mean 'bare'?); available: bare, wrapped."),
        (
            "operator.network=3",
            "operator.network: got 3, expected the name of a component, or a table with one.",
        ),
        ("operator.network.name=3", "operator.network.name: got 3, expected the name of a component."),
        (
            "operator.network=wrapped",
            "operator.network.inner is missing: choose one with --set operator.network.inner=NAME; available: bare, "
            "wrapped.",
        ),
        ("operator.law=std", "Unknown temperature law 'std'; available: power."),
        (
            'operator.law={name="power", power=-1}',
            "operator.law.power: got -1, expected a number greater than 0.",
        ),
        ("operator.more=bare", "operator.more: got 'bare', expected a list of networks."),
        (
            'operator.more=[{name="bare", width=0}]',
            "operator.more[0].width: got 0, expected a number greater than 0.",
        ),
        (
            "operator.clip.lo=1",
            "Unknown option 'operator.clip.lo' (did you mean 'operator.clip.low'?); the options are: low, high, inner",
        ),
        (
            "operator.clip.inner.depth=0",
            "operator.clip.inner.depth: got 0, expected a number greater than 0.",
        ),
        ("operator.clip.inner.deep=1", "Unknown option 'operator.clip.inner.deep' (did you mean"),
        ("operator.clip=3", "operator.clip: got 3, expected a table."),
        ("operator.needy.kind=c", "operator.needy.kind: got \"c\", expected 'a' or 'b'."),
        ("operator.width=3", "Unknown option 'operator.width': it is 'operator.network.width' now."),
        ("loggers.recorder.projekt=x", "Unknown option 'loggers.recorder.projekt' (did you mean"),
        ("loggers.recorder=3", "loggers.recorder: got 3, expected a table of options, true or false."),
        ("loggers.recoder=true", "Unknown logger 'recoder' (did you mean 'recorder'?)"),
        ("metrics.count.scale=wide", 'metrics.count.scale: got "wide", expected a number.'),
        ("run.loggers=[]", "Unknown option 'run.loggers': it is 'loggers.NAME' now."),
    ],
)
def test_error_sentences(registry: Registry, override: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(registry, overrides=[override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_missing_says_how_to_give_it(registry: Registry) -> None:
    asked = {"operator": "composed", "data": "points"}
    with pytest.raises(
        ConfigurationError, match=r"operator\.network is missing: choose one with --set operator"
    ):
        resolve(registry, components=asked)
    with pytest.raises(ConfigurationError, match=r"operator\.law has options and no name: choose one with"):
        resolve(registry, components=asked, overrides=["operator.network=bare", "operator.law.power=2"])
    with pytest.raises(
        ConfigurationError,
        match=r"operator\.needy\.rate is missing: give it with --set operator\.needy\.rate=",
    ):
        resolve(registry, components=asked, overrides=["operator.network=bare", "operator.needy.kind=b"])


def test_a_default_that_is_a_component_is_the_fault_of_its_plugin(registry: Registry) -> None:
    with pytest.raises(PluginError, match=r"'network' is a component, whose default can be None only"):
        resolve(registry, components={"operator": "misguided", "data": "points"})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Component("x", "a:b", preset=[1]), "with preset"),  # type: ignore[arg-type]
        (Component("x", "a:b", renamed={1: "y"}), "with renamed"),  # type: ignore[dict-item]
    ],
)
def test_a_record_that_is_none_is_refused(record: Component, message: str) -> None:
    class Hooks:
        @staticmethod
        @hookimpl
        def walkback_networks() -> Iterator[Component]:
            yield record

    with pytest.raises(PluginError, match=message):
        load_plugin(Hooks, PluginStatus("d:e", "d", "1"))


# --- sections of components by name


def test_loggers_and_metrics_by_name(registry: Registry) -> None:
    overrides = ["loggers.recorder.project=mine", 'loggers."a.b"=true', "metrics.count.scale=2"]
    config = resolve(registry, overrides=overrides)
    assert config.to_dict()["loggers"] == {
        "recorder": {"project": "mine", "every": 5},  # from the recipe
        "a.b": {"project": "none", "every": 1},
    }
    assert config.metrics == (ComponentConfig("count", {"scale": 2.0}),)
    assert RunConfig.from_toml(config.to_toml(), registry) == config


def test_false_takes_one_out(registry: Registry) -> None:
    assert [part.name for part in resolve(registry).loggers] == ["recorder"]
    assert resolve(registry, overrides=["loggers.recorder=false"]).loggers == ()
    again = resolve(registry, overrides=["loggers.recorder=false", "loggers.recorder.project=x"])
    assert again.to_dict()["loggers"]["recorder"]["project"] == "x"


# --- building


def build(registry: Registry, kind: Kind, config: ComponentConfig, *arguments: object) -> Any:
    return build_part(registry, kind, config, object, *arguments)


def test_inner_components_are_built_first(registry: Registry) -> None:
    config = resolve(
        registry,
        components={"operator": "composed-wrapped", "data": "points"},
        overrides=["operator.law.name=power", "operator.law.power=3", 'operator.more=["bare"]'],
    )
    built = build(registry, "operator", config.operator, "space")
    assert (built.space, built.network.inner.options, built.law.power) == ("space", (4, ()), 3.0)
    assert [part.options for part in built.more] == [(8, ())]
    assert (built.clip.high, built.clip.inner.depth, built.needy) == (2.0, 1, None)


def test_what_goes_wrong_inside_names_the_inner_component() -> None:
    class Hooks:
        @staticmethod
        @hookimpl
        def walkback_operators() -> Iterator[Component]:
            yield Component("composed", f"{PARTS}:Composed", preset={"network": "bare", "law": "no-law"})

        @staticmethod
        @hookimpl
        def walkback_networks() -> Iterator[Component]:
            yield Component("bare", f"{PARTS}:Bare")

        @staticmethod
        @hookimpl
        def walkback_temperature_laws() -> Iterator[Component]:
            yield Component("no-law", f"{PLAIN}:Plain")

    wrong = Registry([load_plugin(Hooks, PluginStatus("d:e", "d", "1"))])
    with pytest.raises(
        PluginError, match=r"Plain as the temperature law .*subclass of walkback\.temperature"
    ):
        build(wrong, "operator", component(wrong, "operator", {"name": "composed"}), "space")


# --- files


def numbers(largest: float) -> st.SearchStrategy[float]:
    """Numbers that options accept: 0, and those of a size that single precision keeps."""
    return st.floats(-largest, largest).filter(lambda value: value == 0 or abs(value) >= 1e-18)


DEEP = {
    "operator.network.width": st.integers(1, 10**9),
    "operator.network.widths": st.lists(st.integers(1, 9)),
    "operator.law.power": st.floats(1e-3, 1e3),
    "operator.clip.low": numbers(1e9),
    "operator.clip.inner.depth": st.integers(1, 9),
    "operator.clip.inner.label": st.text(st.characters(codec="ascii", categories=["L"]), min_size=1),
    "operator.needy.rate": st.floats(1e-3, 1e3),
    "operator.more": st.lists(st.fixed_dictionaries({"name": st.just("bare"), "width": st.integers(1, 9)})),
    "loggers.recorder.every": st.integers(1, 9),
    "metrics.count.scale": numbers(9),
}


def as_toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {as_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value)


@settings(max_examples=100, deadline=None)
@given(values=st.fixed_dictionaries({}, optional=DEEP))
def test_files_read_back_exactly(registry: Registry, values: dict[str, Any]) -> None:
    config = resolve(
        registry,
        components={"operator": "composed-bare", "data": "points"},
        overrides=[f"{path}={as_toml(value)}" for path, value in values.items()],
    )
    assert RunConfig.from_toml(config.to_toml(), registry) == config
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict())), registry) == config
    for path, value in values.items():
        if path != "operator.more":
            found: Any = config.to_dict()
            for step in path.split("."):
                found = found[step]
            assert found == value, path


def test_tables_are_nested_in_toml(registry: Registry) -> None:
    written = tomllib.loads(resolve(registry).to_toml())
    assert written["operator"]["network"] == {"name": "bare", "width": 32, "widths": []}
    assert "law" not in written["operator"]  # None
    assert written["loggers"] == {"recorder": {"project": "none", "every": 5}}


def test_a_table_is_its_own_inverse(registry: Registry) -> None:
    found = registry.find("network", "wrapped")
    config = configure(registry, "network", found, [Options({"inner": "bare"})])
    again = configure(registry, "network", found, [Options(component_table(config))])
    assert again == config
    assert component_table(config) == {
        "name": "wrapped",
        "inner": {"name": "bare", "width": 8, "widths": []},
        "share": 0.5,
    }


def test_a_resumed_run_names_the_deep_option_that_changed(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(resolve(registry).to_toml())
    assert (
        resumed_config(registry, tmp_path, ResumeRequest()).operator.options["network"].options["width"] == 32
    )
    with pytest.raises(ConfigurationError, match=r"Got operator\.network\.width = 3 .*trained with 32"):
        resumed_config(registry, tmp_path, ResumeRequest(overrides=["operator.network.width=3"]))
    with pytest.raises(ConfigurationError, match=r"Got operator\.clip\.inner\.depth = 3 .*trained with 1"):
        resumed_config(registry, tmp_path, ResumeRequest(overrides=["operator.clip.inner.depth=3"]))


# --- former options


def test_former_options_move(registry: Registry) -> None:
    old = {"name": "composed-bare", "width": 3, "high": 4.0, "sigma": 0.5, "clip": {"low": 1.0}}
    new = moved_component(registry, "operator", old)
    assert new == {
        "name": "composed-bare",
        "sigma": 0.5,
        "clip": {"low": 1.0, "high": 4.0},
        "network": {"width": 3},
    }
    config = component(registry, "operator", new)
    assert component_table(config)["network"] == {"name": "bare", "width": 3, "widths": []}
    assert moved_component(registry, "operator", new) == new
    assert moved_component(registry, "operator", {"name": "gone", "width": 3}) == {"name": "gone", "width": 3}


def test_what_is_at_the_new_place_stays() -> None:
    assert moved({"a": 1, "b": {"c": 2}}, {"a": "b.c"}) == {"b": {"c": 2}}
    assert moved({"a": {"x": 1, "y": 2}}, {"a.x": "b.z"}) == {"a": {"y": 2}, "b": {"z": 1}}


# --- in words


def test_options_inside_are_listed(registry: Registry) -> None:
    found = registry.find("operator", "composed-bare")
    told = {option.name: option for option in options_of(registry.load(found), found.spec.preset, registry)}
    assert list(told) == [
        "network",
        "network.width",
        "network.widths",
        "sigma",
        "law",
        "law.power",
        "more",
        "clip",
        "clip.low",
        "clip.high",
        "clip.inner",
        "clip.inner.depth",
        "clip.inner.label",
        "needy",
        "needy.rate",
        "needy.kind",
    ]
    assert (told["network"].type, told["network"].default) == ("bare or wrapped", '"bare"')
    assert (told["law"].type, told["law"].default) == ("power, or none", '"power"')
    assert (told["network.width"].default, told["network"].help) == ("16", "What learns")
    assert (told["more"].type, told["more"].default) == ("list of bare or wrapped", "[]")
    assert (told["clip"].type, told["clip.high"].type, told["clip.high"].default) == (
        "table",
        "number",
        "2.0",
    )
    assert (told["clip.low"].help, told["clip.inner.depth"].type) == ("The lower end", "integer > 0")
    assert (told["needy"].default, told["needy.rate"].default, told["needy.kind"].default) == (
        "none",
        REQUIRED,
        '"a"',
    )
    assert (told["sigma"].default, told["clip.inner.label"].default) == ("0.2", "none")
    bare = {option.name: option.default for option in options_of(registry.load(found))}
    assert bare["network"] == REQUIRED


# --- options of base classes


class _Base:
    """Has two options.

    Args:
        depth: How deep.
        width: Said better by a class that knows.
    """

    def __init__(self, name: str, *, depth: int = 1, width: int = 2) -> None:
        self.name, self.depth, self.width = name, depth, width


class _Passing(_Base):
    """Passes on what it does not take itself.

    Args:
        width: How wide.
    """

    def __init__(self, *, width: int = 8, **others: Any) -> None:
        super().__init__("passing", width=width, **others)


class _Keeping(_Base):
    def __init__(self, *, width: int = 8) -> None:
        super().__init__("keeping", width=width)


def test_keywords_that_are_passed_on_are_options_of_the_base_class() -> None:
    assert validate("data", _Passing, {"depth": 3}) == {"width": 8, "depth": 3}
    assert _Passing(**validate("data", _Passing, {"depth": 3})).depth == 3
    assert [(option.name, option.help) for option in options_of(_Passing)] == [
        ("width", "How wide"),
        ("depth", "How deep"),
    ]
    with pytest.raises(ConfigurationError, match="depth"):
        validate("data", _Passing, {"depth": "deep"})
    with pytest.raises(ConfigurationError, match=r"Unknown option 'data\.name'"):
        validate("data", _Passing, {"name": "another"})


def test_without_keywords_a_class_has_its_own_options_only() -> None:
    assert validate("data", _Keeping, {}) == {"width": 8}
