"""Loss and gradient norm must be finite: checked at every update, without waiting for the device.

On the CPU looking at a number is free, so an update that is not finite is refused at once. On a device looking means to
wait until it has done all that it was told, at every update; and a walk is hundreds of small kernels that are told
ahead. So there the check stays on the device, as the gradient scaler of mixed precision does it: the flag `found_inf`
makes fused AdamW leave weights and moments as they are. Once set it stays set, so that the weights remain those of
before the first bad update, whatever comes after. Walk, loss and norm of that update are kept beside it, and `require`
reads them: the trainer does before weights leave it for a checkpoint, a bound or a picture, and every so many walks.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from walkback.errors import WalkbackError


@final
class FiniteCheck:
    """Refuses updates by what is not finite.

    Args:
        device: Of loss and gradients.
    """

    def __init__(self, device: torch.device) -> None:
        # bad (0 or 1), walk, loss, norm of the first bad update; in float64, which has all numbers of walks.
        self._first: Tensor | None = None
        if device.type != "cpu":
            self._first = torch.zeros(4, dtype=torch.float64, device=device)

    def look(self, loss: Tensor, norm: Tensor, walk: int) -> Tensor | None:
        """Look at the loss and the gradient norm of an update, scalars.

        Returns:
            1 on the device where this update is to be skipped, else 0; None on the CPU.

        Raises:
            WalkbackError: One is not finite; on the CPU.
        """
        bad = ~(norm + loss).isfinite()
        if self._first is None:
            if bool(bad):
                raise _diverged(loss.item(), norm.item(), walk)
            return None
        found = torch.stack(
            [bad.double(), bad.new_full((), walk, dtype=torch.float64), loss.double(), norm.double()]
        )
        self._first = torch.where(bad & (self._first[0] == 0), found, self._first)
        return self._first[0].float()

    def require(self) -> None:
        """Wait for the device, and raise what `look` would have raised on the CPU."""
        if self._first is None:
            return
        bad, walk, loss, norm = self._first.tolist()
        if bad:
            raise _diverged(loss, norm, round(walk))


def _diverged(loss: float, norm: float, walk: int) -> WalkbackError:
    return WalkbackError(
        f"Got a loss of {loss:.4g} and a gradient norm of {norm:.4g} at walk {walk}, expected finite numbers: "
        "lower the learning rate (training.lr)."
    )
