"""The networks that walkback ships with: a state and what is told of it in, one `(B, *E)` a head out."""
