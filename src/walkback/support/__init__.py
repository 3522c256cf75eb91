"""What every room uses and none is about: words, seeds, optional libraries, interrupts, progress."""
