"""What figures belong to: the card and the versions, as one JSON document."""

from __future__ import annotations

import json
import platform

import torch


def main() -> None:
    """Look, and print."""
    found = {"Python": platform.python_version(), "PyTorch": torch.__version__}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        own = {"card": card.name, "memory": f"{card.total_memory / 2**30:.0f} GiB"}
        print(json.dumps({"device": "cuda", **own, "CUDA": str(torch.version.cuda), **found}))
    else:
        print(
            json.dumps({"device": "cpu", "card": f"none (CPU, {torch.get_num_threads()} threads)", **found})
        )


if __name__ == "__main__":
    main()
