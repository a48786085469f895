from vico_eval.training.flash.run import train_consistency, train_router


def test_both_stages(consistency_config, router_config):
    folder = train_consistency(consistency_config)
    print((consistency_config.out / "log.jsonl").read_text())
    print((consistency_config.out / "held_out.json").read_text())
    folder = train_router(router_config)
    print((router_config.out / "log.jsonl").read_text())
    print((router_config.out / "held_out.json").read_text())
    import subprocess
    print(subprocess.run(["find", str(consistency_config.out), str(router_config.out)], capture_output=True, text=True).stdout)
