"""The commands of the `walkback` program, each imported when it is called.

Listing and completing commands, and `--version`, must not import the code of the commands. Until it is called, a
command is a light `Command` record, whether it belongs to the program or to a plugin.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, final

import typer
import typer.main
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from walkback.cli.common import registry_of
from walkback.component import Command
from walkback.errors import PluginError, WalkbackError
from walkback.extensions.attribution import naming_plugins
from walkback.extensions.registered import import_object
from walkback.extensions.registry import Registry
from walkback.support.interrupts import Stopped
from walkback.support.text import one_line, printable

COMMANDS = (
    Command("run", "walkback.cli.run:run", "Train a transition operator, evaluate it and draw samples."),
    Command("sample", "walkback.cli.sample:sample", "Draw samples and chains from a checkpoint."),
    Command("inpaint", "walkback.cli.inpaint:inpaint", "Fill in the missing part of images."),
    Command(
        "evaluate", "walkback.cli.evaluate:evaluate", "Estimate the likelihood of held-out data, with errors."
    ),
    Command("diagnose", "walkback.cli.diagnose:diagnose", "Measure the behavior of a trained operator."),
    Command("chain", "walkback.cli.chain:app", "Make checkpoints of known chains."),
    Command("bench", "walkback.cli.bench:bench", "Measure the speed of a configuration on this machine."),
    Command("runs", "walkback.cli.runs:app", "List and compare runs."),
    Command("compare", "walkback.cli.compare:compare", "Compare methods on the same network and compute."),
    Command("report", "walkback.cli.report:report", "Write an HTML page about a run."),
    Command("push", "walkback.cli.push:push", "Publish a model on the Hugging Face hub."),
    Command("info", "walkback.cli.info:info", "Show what a checkpoint contains."),
    Command("data", "walkback.cli.data:app", "List and prepare datasets."),
    Command("config", "walkback.cli.config:app", "List the options of runs."),
    Command("recipes", "walkback.cli.recipes:app", "List and show recipes."),
    Command("plugins", "walkback.cli.plugins:app", "List plugins and their components."),
)
"""The program's own commands, which no plugin can replace."""


def build_app(registry: Registry | None = None) -> typer.Typer:
    """Return the program as a Typer application.

    Args:
        registry: The plugins; None loads the installed ones when they are needed.
    """
    app = typer.Typer(
        cls=Program,
        no_args_is_help=True,
        context_settings={"obj": registry, "help_option_names": ["--help", "-h"]},
        result_callback=_forget,
    )
    app.callback()(_root)
    return app


@final
class LazyCommand(TyperCommand):
    """A command with name and summary; `load` creates the real command when it is called or completed."""

    def __init__(self, name: str, summary: str, load: Callable[[], Any]) -> None:
        super().__init__(name, help=escape(printable(summary)))
        self._load = load

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context of the real command, which is then the one to run."""
        return self._load().make_context(info_name, args, parent, **extra)


class EndedCommand(Exception):  # noqa: N818 - not an error: the user asked for it
    """A signal ended a command; carries `stopped` past Typer, which returns 130 for every KeyboardInterrupt."""

    def __init__(self, stopped: Stopped) -> None:
        super().__init__(str(stopped))
        self.stopped = stopped


@final
class Program(TyperGroup):
    """The program: its own commands, then those of plugins."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for command in COMMANDS:
            self.add_command(LazyCommand(command.name, command.summary, partial(_own, command)))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; errors raised by plugins name the plugin."""
        try:
            return self._invoke(ctx)
        except Stopped as stopped:
            raise EndedCommand(stopped) from stopped

    def _invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BaseException as error:
            # Errors and exits of the command-line parser have their own exit code, and a library that reads keys raises
            # KeyboardInterrupt for Ctrl-C.
            if isinstance(error, WalkbackError | typer.Abort | KeyboardInterrupt) or hasattr(
                error, "exit_code"
            ):
                raise
            if isinstance(error.__context__, BrokenPipeError):  # Rich exits when the reader of a pipe is gone
                raise
            registry = ctx.find_root().obj
            if not isinstance(registry, Registry):
                raise
            with naming_plugins(registry):
                raise

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        others = {offer.spec.name for offer in registry_of(ctx).commands()}
        return [*self.commands, *sorted(others - self.commands.keys())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command called `cmd_name`, which may be `distribution:name`; None if there is none."""
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        registry = registry_of(ctx)
        offers = registry.matches("command", cmd_name)
        if not offers:
            return None
        return LazyCommand(cmd_name, offers[0].spec.summary, partial(_of_plugin, registry, cmd_name))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"walkback {importlib.metadata.version('walkback')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
    no_plugins: Annotated[
        bool, typer.Option("--no-plugins", is_eager=True, help="Load only walkback's own plugins.")
    ] = False,
) -> None:
    """Learn transition operators: Markov chains whose repeated application samples the data.

    Start with `walkback run`: it learns small handwritten digits in about two minutes.
    """


def _forget(*results: object, **parameters: object) -> None:
    """Discard the return value of a command: only `typer.Exit` sets the exit code."""


def _own(command: Command) -> Any:
    target = import_object(command.target)
    # A command that extends its help defines its own class in the same module.
    return _command(command.name, target, getattr(sys.modules[target.__module__], "COMMAND_CLASS", None))


def _of_plugin(registry: Registry, reference: str) -> Any:
    registered = registry.find_command(reference)
    target = registry.load_command(registered)
    blame = f"The command {registered.qualified_name!r} is broken"
    if not isinstance(target, typer.Typer):
        raise PluginError(f"{blame}: {registered.spec.target} is {target!r:.80}, expected a typer.Typer.")
    try:
        return _command(reference, target)
    except Exception as error:  # Typer reads the functions' signatures only here
        raise PluginError(f"{blame}: {one_line(error)}.") from error


def _command(name: str, target: Any, cls: type[TyperCommand] | None = None) -> Any:
    """Return the command of a function, or the group of a `typer.Typer`."""
    app = typer.Typer(add_completion=False)
    if isinstance(target, typer.Typer):
        app.add_typer(target, name=name)
    else:
        app.command(name, cls=cls or TyperCommand)(target)
    command = typer.main.get_command(app)
    return command.commands[name] if isinstance(command, TyperGroup) else command
