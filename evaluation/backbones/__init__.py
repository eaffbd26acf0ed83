"""Feature extractors of the metrics. Weights are read from this machine only; nothing is downloaded."""
