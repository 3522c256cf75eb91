"""Models of diffusers: its U-Net as a network, and saved pipelines as checkpoints."""
