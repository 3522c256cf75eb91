"""The U-Net of diffusers as a network of walkback."""
