"""Qwen2.5-VL and Qwen3-VL, dense and MoE, on transformers' own classes."""
