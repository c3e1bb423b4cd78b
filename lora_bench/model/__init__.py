"""The encoder with its adapters, its head and how packed tokens go through it. Nothing here knows tables, files of runs or Hydra."""
