"""A schedule for walkback, and the diagnostic that judges it."""
