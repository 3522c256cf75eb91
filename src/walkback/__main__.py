"""Entry point of `python -m walkback`, for environments where the `walkback` script is not on the path."""

from __future__ import annotations

from walkback.cli.main import main

if __name__ == "__main__":
    main()
