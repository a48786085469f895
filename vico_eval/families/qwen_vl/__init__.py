"""Qwen2.5-VL and Qwen3-VL, dense and with experts, on transformers' own classes."""
