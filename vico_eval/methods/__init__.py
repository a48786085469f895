"""Compression methods: one file per method, registered by name in `registry.BUILT_IN`.

`interface` defines the places where a method can act, what it sees there and what it returns. Other packages add
methods through entry points in the group `vico_eval.methods`. Such a method is known like a built-in one: `vico-eval
methods` lists it, and it runs in lmms-eval as `<name>_internvl`, `<name>_qwen2_5_vl` and `<name>_qwen3_vl`.
"""
