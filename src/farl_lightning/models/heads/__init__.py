"""Heads that are one small module each."""
