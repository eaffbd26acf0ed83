"""Text-driven video editing with frozen diffusion models: clips, backbones, methods and the masks they trust."""
