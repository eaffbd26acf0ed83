"""How the embedded models are made: data, tokenizer, networks and losses, without a training framework."""
