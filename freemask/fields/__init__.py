"""Fields: small networks that are fitted to one clip, so that editing one picture edits all its frames."""
