"""From recipes, flags and defaults to one resolved, validated configuration."""
