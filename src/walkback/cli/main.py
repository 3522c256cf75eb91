"""The entry point: runs a command, and turns exceptions into one sentence on stderr and an exit code.

0 success, 1 failure, 2 usage or configuration, 3 a figure is above its threshold, 4 a plugin is at fault,
129, 130, 143 ended by SIGHUP, SIGINT, SIGTERM.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import typer
import typer.main

from walkback.cli.app import EndedCommand, build_app
from walkback.cli.console import Output
from walkback.errors import ConfigurationError, WalkbackError
from walkback.support.interrupts import Interrupted, Stopped, ended_by_signals
from walkback.support.memory_errors import is_out_of_memory, wanted_by
from walkback.support.processes import is_one_of_several
from walkback.support.text import one_line

_GLOBAL_FLAGS = ("--debug", "--no-plugins")
"""Flags of the program itself, accepted before and after the command."""

_INTERRUPTED = 128 + signal.SIGINT
"""Exit code of Typer for a KeyboardInterrupt."""


def main() -> NoReturn:
    """Run `walkback` with the arguments of the process."""
    # Let waiting threads sleep instead of spin: on a busy machine, spinning makes two threads slower than one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if is_one_of_several():  # before torch is loaded: DDP would warn that no parameter was without a gradient
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks σ or × shows a question mark
    code = call(sys.argv[1:])
    if is_one_of_several():
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End one of several processes without shutting down the interpreter.

    Threads of the process group may outlive it and hold tensors; if one frees a tensor while the interpreter shuts
    down, it aborts a process whose work is done (https://github.com/pytorch/pytorch/pull/179291).
    """
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def call(arguments: Sequence[str]) -> int:
    """Run `walkback` with arguments, and return its exit code."""
    arguments = _hoist(arguments)
    try:
        with ended_by_signals() as raised, warnings.catch_warnings():
            warnings.showwarning = _show_warning
            _refuse_empty(arguments)
            program: Any = typer.main.get_command(build_app())
            code = program.main(args=arguments, prog_name="walkback", standalone_mode=False)
            sys.stdout.flush()
    except EndedCommand as ended:
        return _report_stop(ended.stopped)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except Interrupted as stopped:
        if stopped.directory is not None:
            Output().note(str(stopped))
        return 128 + stopped.signal
    except BrokenPipeError:
        # The reader of the pipe is gone. Without this, the interpreter would report a failed flush at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # Compiled code, such as pydantic's, may replace the exception that a signal raised in it by another one.
        if raised:
            return _report_stop(raised[-1])
        return _report(error, debug="--debug" in arguments)
    if code == _INTERRUPTED:  # from Typer, for a signal before the command began
        return _report_stop(raised[-1] if raised else Stopped(signal.SIGINT))
    return code if isinstance(code, int) else 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Say what code warns about as any other warning, without the line that warned."""
    Output().warn(str(message))


def _report_stop(stopped: Stopped) -> int:
    """Report that a signal ended the command; returns the exit code."""
    notes = getattr(stopped, "__notes__", ())
    # A launcher also ends processes because another one failed: the message of that one should be seen, not this one.
    if notes or not is_one_of_several():
        Output().error("; ".join([str(stopped), *notes]) + ".")
    return 128 + stopped.signal


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse empty values, e.g. of an unset variable in a script: an empty path would mean the current directory."""
    option = ""
    for argument in arguments:
        given, equals, value = argument.partition("=")
        if equals and not value and given.startswith("--"):
            option, argument = given, ""
        if not argument:
            where = f"for {option}" if option else "as an argument"
            raise ConfigurationError(f"Got nothing {where} (an empty text), expected a value.")
        option = argument if argument.startswith("-") else ""


def _hoist(arguments: Sequence[str]) -> list[str]:
    """Move global flags to the front, where the program's parser expects them."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    flags = [argument for argument in arguments[:end] if argument in _GLOBAL_FLAGS]
    return [*flags, *(argument for argument in arguments[:end] if argument not in flags), *arguments[end:]]


def _report(error: Exception, *, debug: bool) -> int:
    """Report an error; returns the exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, WalkbackError):
        Output().error(str(error))
        return error.exit_code
    if hasattr(error, "format_message"):
        return _report_usage(error)
    if is_out_of_memory(error):
        Output().error(
            f"Got too little memory{wanted_by(error)}, expected it to suffice: lower batch sizes, numbers of samples "
            "or the size of the operator, or raise the limit of this process (ulimit -v)."
        )
        return 1
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        Output().error(
            "Got too many open files, expected fewer: raise the limit of this process (ulimit -n)."
        )
        return 1
    Output().error(f"{one_line(error)}; run again with --debug for the traceback.")
    return 1


def _report_usage(error: Any) -> int:
    """Report an error of the command-line parser; one without a message has already shown the help."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "walkback"
    if message:
        Output().error(f"{message} (see {command} --help).")
    return int(error.exit_code)
