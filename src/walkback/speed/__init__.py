"""How fast a configuration trains and samples on this machine."""
