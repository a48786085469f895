"""Ways of saving visual tokens: one file a method, named in `registry.BUILT_IN`.

`interface` says where a method can act, what it sees there and what it returns. An entry point of another package in
the group `vico_eval.methods` is known in the same way as a method of this folder: `vico-eval methods` lists it, and it
runs in lmms-eval as `<name>_internvl`, `<name>_qwen2_5_vl` and `<name>_qwen3_vl`.
"""
