"""Visible and latent units for walkback: blocked updates of (v, h)."""
