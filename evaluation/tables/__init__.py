"""Tables: of a run, and of papers as they were printed; one grid for all of them, and one printer of grids."""
