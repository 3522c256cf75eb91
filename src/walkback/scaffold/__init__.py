"""Writing a new plugin distribution from templates."""
