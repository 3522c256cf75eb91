"""The built-in diagnostics: `walkback diagnose NAME CKPT`."""
