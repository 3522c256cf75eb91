"""Laws of loggers: any figure and picture can be logged, and nothing is written outside the run directory."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

from walkback.loggers import Logger
from walkback.testing.cases import Case, ConformanceError, Suite

LOGGERS = Suite()

_CONFIG = {
    "operator": {"name": "some", "sigma": 0.03, "network": {"name": "mlp", "hidden": [8, 8]}},
    "training": {"steps": 3, "lr": 1e-4, "minutes": None},
    "loggers": {"this": {}},
}


def _png() -> bytes:
    file = BytesIO()
    Image.new("L", (8, 8), 128).save(file, "PNG")
    return file.getvalue()


_PICTURE = _png()


@contextlib.contextmanager
def _watched() -> Iterator[Path]:
    """Provide a run directory; raises ConformanceError for files written beside it or to the working directory."""
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
    logger: Logger = case.build("logger")
    logger.open(directory, _CONFIG)
    return logger


def _log(logger: Logger) -> None:
    for step in range(1, 4):
        logger.log(step, {"loss": 1.5 / step, "bound/validation": -2.0})
        logger.log_picture(step, "annealed", _PICTURE)


@LOGGERS.check("builds", "it is a logger, built from its options, and writes nothing before it is opened")
def _builds(case: Case) -> None:
    with _watched() as directory:
        logger: Logger = case.build("logger")
        written = [path.name for path in directory.parent.parent.rglob("*") if path.is_file()]
        if written:
            raise ConformanceError(
                f"Got the file {written[0]!r} from a logger that has not been opened, expected none: write in `open`."
            )
        logger.open(directory, _CONFIG)
        logger.close()


@LOGGERS.check("directory", "it writes below the run directory, and nowhere else")
def _directory(case: Case) -> None:
    with _watched() as directory, contextlib.closing(_opened(case, directory)) as logger:
        _log(logger)


@LOGGERS.check("nonfinite", "figures that are nan or infinite are logged like any others")
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
                    f"Got {type(error).__name__} from the {time} close, expected none: close is idempotent."
                ) from error


@LOGGERS.check("again", "a resumed run can open the directory again, and log a step a second time")
def _again(case: Case) -> None:
    with _watched() as directory:
        for _ in range(2):
            with contextlib.closing(_opened(case, directory)) as logger:
                _log(logger)
