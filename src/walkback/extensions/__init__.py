"""Discovery of plugins, each in isolation, and lookup of their components by name."""
