"""Pictures of states and recordings of chains: PNG, GIF, npz, safetensors."""
