"""`load`: a trained model from a file."""

from __future__ import annotations

import os
from pathlib import Path

from walkback.api.inputs import installed, model_request
from walkback.api.records import Trained
from walkback.reporting.content import history_in
from walkback.support.watch import Silent


def load(path: str | os.PathLike[str], *, device: str = "auto") -> Trained:
    """Load the model of a checkpoint file; code named in the file is not run.

    Args:
        path: A `.safetensors` checkpoint of `walkback run` or `Trained.save`; the directory of a run, for its trained
            model (or the newest complete checkpoint if it is unfinished); or `hf://USER/MODEL`, a model on the Hugging
            Face hub, whose `final.safetensors` is downloaded.
        device: "auto" (CUDA if available), "cpu" or "cuda[:i]".

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: The file is not a usable checkpoint, or needs a plugin that is not installed.
        ConfigurationError: The device does not exist.
        PluginError: A required plugin is broken.
    """
    loaded = model_request(path, device).open(installed(), Silent())
    directory = Path(path) if Path(path).is_dir() else None
    return Trained(
        loaded.model,
        loaded.info,
        loaded.checkpoint,
        loaded.device,
        loaded.name,
        directory=directory,
        path=loaded.path,
        history=() if directory is None else history_in(directory),
    )
