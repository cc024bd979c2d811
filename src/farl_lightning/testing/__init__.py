"""Helpers for tests, ours and yours: tiny models, fake files in native layout, a pool of processes."""
