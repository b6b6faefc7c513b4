"""Pseudo labels: made at clicks, resolved, written, shown, and merged with the full ones."""
