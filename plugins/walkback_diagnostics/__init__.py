"""The diagnostics that walkback ships with: `walkback diagnose NAME CKPT`."""
