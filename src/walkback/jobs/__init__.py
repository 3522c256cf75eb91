"""One request a verb, the same for the command line and for Python: what can be refused is refused before any work."""
