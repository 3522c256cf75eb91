"""Finding plugins, each in isolation, and looking up what they offer by name."""
