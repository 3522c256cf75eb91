"""The networks that walkback ships with: a state and its conditioning in, one `(B, *E)` per head out."""
