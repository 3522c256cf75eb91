"""The networks inside the paper's operators: `(B, *E)` and log T in, one or more `(B, *E)` heads out."""
