"""Execution of a run that records in its directory how the run ended."""

from __future__ import annotations

from contextlib import suppress

from walkback.errors import WalkbackError
from walkback.storage.files import writing_to
from walkback.storage.outcome import RESULT_FILE, Bound, Outcome
from walkback.storage.rundir import RunDirectory
from walkback.support.interrupts import Interrupted
from walkback.support.text import one_line
from walkback.training.finite import NotFiniteError
from walkback.training.metrics_file import FILE_NAME, last_step
from walkback.training.run import Run
from walkback.training.run_result import RunResult


def execute(run: Run, directory: RunDirectory | None, *, fresh: bool = True) -> RunResult | None:
    """Execute a run and write `result.json`, however the run ends.

    Args:
        run: The run.
        directory: Its directory; None if nothing is kept, and in processes that do not write.
        fresh: Whether to remove an earlier `result.json` first. A run that goes back to an older checkpoint moves it
            itself.

    Raises:
        Interrupted: See `Run.execute`.
        WalkbackError: See `Run.execute`.
    """
    if directory is None:
        return run.execute()
    if fresh:
        with writing_to(directory.path / RESULT_FILE):
            (directory.path / RESULT_FILE).unlink(missing_ok=True)
    try:
        result = run.execute()
    except Interrupted as stopped:
        _leave(directory, Outcome(state="interrupted", walks=stopped.walks))
        raise
    except NotFiniteError as error:
        _leave(directory, Outcome(state="diverged", walks=error.walk, reason=one_line(error)))
        raise
    except Exception as error:
        walks = last_step(directory.path / FILE_NAME)
        _leave(directory, Outcome(state="failed", walks=walks, reason=one_line(error)))
        raise
    if result is not None:
        directory.require_held()
        _outcome(result).write(directory.path)
    return result


def _outcome(result: RunResult) -> Outcome:
    bound = None
    if result.bound is not None:
        bound = Bound.model_validate({**result.bound.to_dict(), "split": result.protocol["split"]})
    return Outcome(
        state="finished",
        walks=result.walks,
        seconds=result.seconds,
        bound=bound,
        best_step=result.best_step,
    )


def _leave(directory: RunDirectory, outcome: Outcome) -> None:
    """Try to write an outcome, ignoring errors: the error that ended the run is more important.

    A run that has not started leaves its directory free for the next one.
    """
    if not directory.config.exists():
        return
    with suppress(WalkbackError, OSError):
        directory.require_held()
        outcome.write(directory.path)
