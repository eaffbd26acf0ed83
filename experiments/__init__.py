"""Entry points: the only package that knows Hydra, Lightning and the loggers. Nothing imports it."""
