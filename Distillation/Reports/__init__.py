"""Reads runs from their folders, names them, compares them and draws them."""
