"""Modules with the names and habits of others, on top of pyshmkey."""
