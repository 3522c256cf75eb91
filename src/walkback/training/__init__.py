"""Training: the loop, its updates, its optimizer, and the run that surrounds them."""
