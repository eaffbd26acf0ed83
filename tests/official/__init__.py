"""Our code against stored numbers of the authors' own."""
