"""The `walkback` command-line program."""
