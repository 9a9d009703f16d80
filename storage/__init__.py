"""Symbolised windows in, Parquet segments at rest, tables out. Knows nothing of call trees or pages."""
