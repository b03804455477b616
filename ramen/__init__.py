"""Ramen's domain as pure Python: objects, conditions, gates, epochs, names and decisions. No I/O lives here."""
