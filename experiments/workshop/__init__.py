"""What made the embedded models: recipes, the loop, and the report about them."""
