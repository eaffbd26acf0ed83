"""What is here, what an edit would need, and whether the chosen data are whole."""
