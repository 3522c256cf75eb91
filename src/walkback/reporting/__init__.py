"""Summaries of run directories: tables of many runs, a page about one. Does not import torch."""
