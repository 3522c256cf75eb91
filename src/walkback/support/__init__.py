"""Utilities shared by all packages: text, seeding, optional libraries, interrupts, progress."""
