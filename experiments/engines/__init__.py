"""Engines: they decide which process does which task of a frozen plan. The rows do not know which engine ran."""
