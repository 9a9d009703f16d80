"""Kernel events in, windows of raw samples out. Knows nothing of Parquet, symbols or pages."""
