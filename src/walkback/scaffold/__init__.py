"""Creation of new plugin distributions from templates."""
