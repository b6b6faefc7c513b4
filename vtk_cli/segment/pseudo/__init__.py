"""Pseudo labels: made at clicks, resolved, written, looked at, and merged with the full ones."""
