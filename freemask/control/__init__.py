"""What is seen in a clip and shown to a network beside the noisy latents: edges, depth, poses, anything from files."""
