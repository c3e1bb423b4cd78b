"""The encoder with its adapters and head, and the pass of packed tokens through it."""
