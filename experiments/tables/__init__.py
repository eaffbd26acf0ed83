"""The papers' tables from rows."""
