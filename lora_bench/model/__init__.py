"""The encoder with its adapters and head, and its forward pass over packed tokens."""
