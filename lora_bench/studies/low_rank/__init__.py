"""Can weights be low-rank from the start?

LoRA (Hu et al. 2021, arXiv 2106.09685) assumes that the *update* to a weight has low rank. This
study asks whether the weights themselves can have low rank: one small image classifier is trained
with full-rank layers, with low-rank ones, and with pairs of ordinary layers, over ranks and seeds.

Its settings are its own; its runs are ordinary records, which ``lora_bench.report`` reads.
"""
