"""Isthmus builds, trains, measures and compares vision-language connectors."""

__version__ = "0.1.0"
