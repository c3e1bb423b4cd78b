"""Sweeps: what a command line asks for and how far it is."""
