"""States as pictures and recorded chains: PNG, GIF, npz, safetensors."""
