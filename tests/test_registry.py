"""The registry: plugins are isolated from each other, and names are looked up without ambiguity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from walkback import hookspecs
from walkback.component import Recipe
from walkback.errors import ConfigurationError, DataError, PluginError
from walkback.extensions.loader import RECORDS, Plugin, PluginStatus, hook_name
from walkback.extensions.registry import Registry

Install = Callable[..., Path]

GOOD = """
    @hookimpl
    def walkback_operators():
        yield Component("fine", "collections:OrderedDict", "An operator")
"""

BROKEN = {
    "import error": ("import no_such_module_anywhere", "no_such_module_anywhere"),
    "syntax error": ("def (", "SyntaxError"),
    "exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "wrong signature": ("@hookimpl\ndef walkback_operators(config): return []", "config"),
    "misspelt hook": ("@hookimpl\ndef walkback_operater(): return []", "did you mean 'walkback_operators'?"),
    "no hook": ("def walkback_operators(): return []", "hookimpl"),
    "no iterable": ("@hookimpl\ndef walkback_operators(): return 3", "walkback_operators gave 3"),
    "a string": ("@hookimpl\ndef walkback_operators(): return ['fine']", "gave 'fine', expected Component"),
    "another record": (
        "@hookimpl\ndef walkback_operators(): yield Recipe('r', 'p:r.toml')",
        "expected Component",
    ),
    "generator raises": (
        "@hookimpl\ndef walkback_priors():\n    yield from ()\n    raise RuntimeError('half\\nway')",
        "RuntimeError: half way",
    ),
    "generator exits": (
        "@hookimpl\ndef walkback_priors():\n    yield from ()\n    raise SystemExit",
        "SystemExit",
    ),
    "name with colon": ("@hookimpl\ndef walkback_priors(): yield Component('a:b', 'c:d')", "'a:b'"),
    "name that is none": ("@hookimpl\ndef walkback_priors(): yield Component(None, 'c:d')", "None"),
    "target without attribute": (
        "@hookimpl\ndef walkback_priors(): yield Component('a', 'b')",
        "'module:name'",
    ),
    "defaults that are flat": (
        "@hookimpl\ndef walkback_priors(): yield Component('a', 'b:c', defaults={'lr': 1})",
        "by section",
    ),
    "a name twice": ("@hookimpl\ndef walkback_priors(): return [Component('a', 'b:c')] * 2", "'a' twice"),
}


def statuses(registry: Registry) -> dict[str, str]:
    return {plugin.name: plugin.status for plugin in registry.plugins}


def names(registry: Registry, kind: str) -> set[str]:
    return {offer.qualified_name for offer in registry.offers(kind)}


@pytest.mark.parametrize(("code", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_plugin_is_recorded_and_harms_no_other(install: Install, code: str, reason: str) -> None:
    install("bad", code)
    install("good", GOOD)
    registry = Registry.discover()
    (bad,) = [plugin for plugin in registry.plugins if plugin.name == "bad:main"]
    assert (bad.status, bad.distribution, bad.version) == ("broken", "bad", "1.0")
    assert reason in bad.error
    assert "Traceback" in bad.traceback
    assert "good:fine" in names(registry, "operator")
    assert not any(name.startswith("bad:") for kind in RECORDS for name in names(registry, kind))
    (warning,) = [line for line in registry.warnings() if "bad:main" in line]
    assert "\n" not in warning


def test_optional_hook_of_a_later_version_is_allowed(install: Install) -> None:
    install("ahead", "@hookimpl(optionalhook=True)\ndef walkback_dreams(): return []")
    assert statuses(Registry.discover())["ahead:main"] == "ok"


def test_interrupt_while_loading_stops_the_program(install: Install) -> None:
    install("slow", "import signal\nsignal.raise_signal(signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        Registry.discover()


def test_unreadable_metadata_harm_no_other_distribution(install: Install) -> None:
    site = install("good", GOOD)
    (site / "torn-1.0.dist-info").mkdir()
    (site / "torn-1.0.dist-info" / "entry_points.txt").write_text("[walkback]\nno equals sign\n")
    assert "good:fine" in names(Registry.discover(), "operator")


def test_what_plugins_print_goes_to_stderr(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(
        "loud", "print('imported')\n@hookimpl\ndef walkback_operators():\n    print('called')\n    return []"
    )
    Registry.discover()
    assert capsys.readouterr() == ("", "imported\ncalled\n")


def test_same_entry_point_name_in_two_distributions(install: Install) -> None:
    install("good", GOOD)
    install("other", GOOD.replace("fine", "finer"))
    assert {"good:fine", "other:finer"} <= names(Registry.discover(), "operator")


def test_two_plugins_of_one_distribution(install: Install) -> None:
    install("good", GOOD, entry="one")
    install("good", GOOD.replace("fine", "finer"), entry="two")
    assert {"good:fine", "good:finer"} <= names(Registry.discover(), "operator")


@pytest.mark.parametrize("only", [["main2"], ["My.Dist:main2"], ["my-dist:main2"]])
def test_only_loads_what_is_named_and_walkback_itself(install: Install, only: list[str]) -> None:
    install("good", GOOD)
    install("my_dist", GOOD, entry="main2")
    registry = Registry.discover(only)
    assert statuses(registry)["good:main"] == "blocked"
    assert statuses(registry)["my_dist:main2"] == "ok"
    assert "blocked" not in {
        plugin.status for plugin in registry.plugins if plugin.distribution == "walkback"
    }
    with pytest.raises(ConfigurationError, match=r"leaves out good:main"):
        registry.find("operator", "good:fine")


def test_only_warns_of_names_that_are_not_installed(install: Install) -> None:
    install("good", GOOD)
    assert any("'godo'" in line for line in Registry.discover(["godo"]).warnings())


def test_disabled_plugins_are_not_even_imported(install: Install) -> None:
    install("bad", "raise SystemExit")
    assert statuses(Registry.discover(enabled=False))["bad:main"] == "blocked"


def test_clash_is_refused_only_when_asked_for(install: Install) -> None:
    install("good", GOOD)
    install("other", GOOD)
    registry = Registry.discover()
    assert {"good:fine", "other:fine"} <= names(registry, "operator")
    with pytest.raises(ConfigurationError, match=r"'good' and 'other': ask for 'good:fine' or 'other:fine'"):
        registry.find("operator", "fine")
    assert registry.find("operator", "other:fine").distribution == "other"
    assert registry.find("operator", "fine", prefer="other").reference == "other:fine"
    assert registry.find("operator", "good:fine").rivals == ("other:fine",)


def test_clash_inside_one_distribution_is_its_fault(install: Install) -> None:
    install("good", GOOD, entry="one")
    install("good", GOOD, entry="two")
    with pytest.raises(PluginError, match=r"good:one and good:two"):
        Registry.discover().find("operator", "good:fine")


def test_unknown_name_says_the_nearest_and_the_list(install: Install) -> None:
    install("good", GOOD)
    with pytest.raises(
        ConfigurationError, match=r"Unknown operator 'fien' \(did you mean 'fine'\?\); available: .*fine"
    ):
        Registry.discover().find("operator", "fien")


def test_unknown_name_mentions_what_is_broken(install: Install) -> None:
    install("bad", "raise SystemExit")
    registry = Registry.discover()
    with pytest.raises(ConfigurationError, match=r"bad:main"):
        registry.find("operator", "elsewhere")
    with pytest.raises(PluginError, match=r"bad:main is broken \(SystemExit\)"):
        registry.find("operator", "bad:elsewhere")


def test_load_imports_the_class(install: Install) -> None:
    install("good", GOOD)
    registry = Registry.discover()
    assert registry.load(registry.find("operator", "fine")).__name__ == "OrderedDict"


@pytest.mark.parametrize(
    "target", ["no_such_module:Thing", "collections:NoSuchThing", "antigravity_exit:X", "math:pi"]
)
def test_load_names_the_distribution_at_fault(install: Install, target: str) -> None:
    site = install("good", GOOD.replace("collections:OrderedDict", target))
    (site / "antigravity_exit.py").write_text("raise SystemExit(0)")
    registry = Registry.discover()
    with pytest.raises(PluginError, match=r"'fine' of distribution good 1\.0 is broken: "):
        registry.load(registry.find("operator", "fine"))


RECIPES = """
    @hookimpl
    def walkback_recipes():
        yield Recipe("here", "good_main_package:sub/here.toml", default=True)
        yield Recipe("gone", "good_main_package:gone.toml")
"""


def test_recipe_text(install: Install) -> None:
    site = install("good", RECIPES)
    (site / "good_main_package" / "sub").mkdir(parents=True)
    (site / "good_main_package" / "sub" / "here.toml").write_text("# déjà vu\n", encoding="utf-8")
    registry = Registry.discover()
    assert registry.recipe_text(registry.find_recipe("here")) == "# déjà vu\n"
    with pytest.raises(PluginError, match="'gone' of distribution good"):
        registry.recipe_text(registry.find_recipe("gone"))


def with_default_recipes(*distributions: str) -> Registry:
    recipe = Recipe("start", "package:start.toml", default=True)
    return Registry(
        [Plugin(PluginStatus(f"{d}:main", d, "1.0"), {"recipe": (recipe,)}) for d in distributions]
    )


def test_default_recipe_of_walkback_beats_others() -> None:
    default = with_default_recipes("good", "walkback", "other").default_recipe()
    assert default is not None
    assert default.qualified_name == "walkback:start"


def test_no_default_recipe() -> None:
    assert with_default_recipes().default_recipe() is None


def test_two_default_recipes_of_third_parties_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'good:start' and 'other:start'.*--recipe"):
        with_default_recipes("good", "other").default_recipe()


SOURCE = """
    @hookimpl
    def walkback_datasets():
        yield Component("reader", "collections:OrderedDict")

    @hookimpl
    def walkback_dataset_source(source):
        {body}
"""


def test_dataset_source_gives_component_and_options(install: Install) -> None:
    install(
        "good",
        SOURCE.format(body="return DatasetSource('reader', {'path': source}) if source == 's3:x' else None"),
    )
    registry = Registry.discover()
    found = registry.dataset_source("s3:x")
    assert found is not None
    assert (found[0].qualified_name, found[1]) == ("good:reader", {"path": "s3:x"})
    assert registry.dataset_source("\0") is None


@pytest.mark.parametrize(
    "body", ["1 / 0", "raise SystemExit", "return 'reader'", "return DatasetSource('unheard-of')"]
)
def test_failing_dataset_source_is_passed_over(install: Install, body: str) -> None:
    install("good", SOURCE.format(body="return DatasetSource('reader')"))
    install("sick", SOURCE.format(body=body))
    registry = Registry.discover()
    assert statuses(registry)["sick:main"] == "ok"
    found = registry.dataset_source("s3:x")
    assert found is not None
    assert found[0].qualified_name == "good:reader"
    assert statuses(registry)["sick:main"] == "broken"
    assert any("sick:main" in line for line in registry.warnings())


def test_dataset_source_may_refuse_what_it_knows(install: Install) -> None:
    code = "from walkback.errors import DataError\n        raise DataError('The folder is empty.')"
    install("good", SOURCE.format(body=code))
    with pytest.raises(DataError, match="empty"):
        Registry.discover().dataset_source("s3:x")


def test_every_kind_has_a_hook_and_every_hook_a_kind() -> None:
    hooks = {name for name in vars(hookspecs) if name.startswith("walkback_")}
    assert {hook_name(kind) for kind in RECORDS} | {"walkback_dataset_source"} == hooks


def test_own_plugins_are_found() -> None:
    own = {
        plugin.name: plugin.error
        for plugin in Registry.discover().plugins
        if plugin.distribution == "walkback"
    }
    if not own:
        pytest.skip("walkback is not installed, so its entry points are not either")
    assert {"walkback:paper", "walkback:hf", "walkback:toys"} <= own.keys()
    assert set(own.values()) == {""}
