"""Whether a server can be reached, asked before libraries that retry for a long time."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request


def answers(url: str, patience: float) -> bool:
    """Return whether a server answers at `url` within `patience` seconds, through a proxy if one is configured.

    Runs in a thread, because neither the name lookup nor trying several addresses in turn respects a timeout.
    """
    answered = threading.Event()

    def ask() -> None:
        if url.startswith(("http://", "https://")) and _head(url, patience) < 500:
            answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    return answered.is_set()


def _head(url: str, patience: float) -> int:
    """Return the status of a HEAD request; 503 if there is no answer."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "walkback"})
    try:
        with urllib.request.urlopen(request, timeout=patience) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code
    except (OSError, ValueError):
        return 503
