"""The `walkback` program."""
