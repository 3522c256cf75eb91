"""Laws of loggers: any finite or other figure can be logged, and nothing is written outside the run directory."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

from walkback.loggers import Logger
from walkback.testing.cases import Case, ConformanceError, Suite

LOGGERS = Suite()


@contextlib.contextmanager
def _watched() -> Iterator[Path]:
    """A run directory; refuses files that come to lie beside it, or in the working directory."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        run, here = top / "runs" / "one", top / "here"
        run.mkdir(parents=True)
        here.mkdir()
        with contextlib.chdir(here):
            yield run
        outside = [path for path in top.rglob("*") if path.is_file() and not path.is_relative_to(run)]
        if outside:
            raise ConformanceError(
                f"Got the file {outside[0].name!r} outside the run directory, expected nothing there: write below "
                "the directory that is given."
            )


def _opened(case: Case, directory: Path) -> Logger:
    logger: Logger = case.build("logger", directory)
    return logger


def _log(logger: Logger) -> None:
    for step in range(1, 4):
        logger.log(step, {"loss": 1.5 / step, "bound/validation": -2.0})


@LOGGERS.check("builds", "it is a logger, built from a directory and its options")
def _builds(case: Case) -> None:
    with _watched() as directory:
        logger = _opened(case, directory)
        logger.close()


@LOGGERS.check("directory", "it writes below the run directory, and nowhere else")
def _directory(case: Case) -> None:
    with _watched() as directory, contextlib.closing(_opened(case, directory)) as logger:
        _log(logger)


@LOGGERS.check("nonfinite", "figures that are nan or infinite are logged like others")
def _nonfinite(case: Case) -> None:
    with _watched() as directory, contextlib.closing(_opened(case, directory)) as logger:
        logger.log(1, {"loss": math.nan, "grad_norm": math.inf, "bound": -math.inf})


@LOGGERS.check("close", "it can be closed twice")
def _close(case: Case) -> None:
    with _watched() as directory:
        logger = _opened(case, directory)
        _log(logger)
        for time in ("first", "second"):
            try:
                logger.close()
            except Exception as error:
                raise ConformanceError(
                    f"Got {type(error).__name__} of the {time} close, expected none: close is idempotent."
                ) from error


@LOGGERS.check("again", "a resumed run may open the directory again, and log a step a second time")
def _again(case: Case) -> None:
    with _watched() as directory:
        for _ in range(2):
            with contextlib.closing(_opened(case, directory)) as logger:
                _log(logger)
