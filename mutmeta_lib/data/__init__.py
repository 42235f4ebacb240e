"""Measured variants: notations, tables, assays, proteins and splits; the bundled measurements."""
