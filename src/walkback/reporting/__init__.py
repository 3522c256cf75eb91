"""What run directories say about their runs: tables of many, a page on one. Does not import torch."""
