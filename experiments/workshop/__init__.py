"""How the embedded models are made and measured: recipes, data, networks, losses, one training loop, a report."""
