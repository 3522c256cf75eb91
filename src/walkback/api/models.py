"""`load`: a trained model from a file."""

from __future__ import annotations

import os
from pathlib import Path

from walkback.api.inputs import installed, model_request
from walkback.api.records import Trained
from walkback.reporting.content import history_in
from walkback.support.watch import Silent


def load(path: str | os.PathLike[str], *, device: str = "auto") -> Trained:
    """The model in a checkpoint file; no code named in the file is run.

    Args:
        path: A `.safetensors` checkpoint of `walkback run` or `Trained.save`; the directory of a run, whose trained
            model, or newest whole checkpoint where it has not ended, is taken; or `hf://USER/MODEL`, a model on the
            Hugging Face hub, whose `final.safetensors` is fetched.
        device: "auto" (CUDA where there is one), "cpu" or "cuda[:i]".

    Raises:
        CheckpointError: The file is no usable checkpoint, or needs a plugin that is not installed.
        ConfigurationError: There is no such device.
        PluginError: A plugin that it needs is broken.
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
