"""Run by `test_two_processes` on two processes: what FSDP2 shards computes the same losses and gradients.

The processes have other samples, and in turn only words, so that one would wait for ever for a part that the other
leaves out.
"""

import copy
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from vico_eval.training.config import read_consistency
from vico_eval.training.data.batches import collate, random_share
from vico_eval.training.data.samples import Data
from vico_eval.training.models.opening import add_low_connector, open_model
from vico_eval.training.models.pair import PolicyAndReference, frozen_copy


class Alone:
    """What `Data` asks of an accelerator, for one process."""

    process_index, num_processes = 0, 1

    @contextmanager
    def main_process_first(self):
        yield


def losses(model, batch):
    kl = model(batch, [random_share(batch, ("test",))]).kl
    kl.sum().backward()
    return kl.detach()


def main():
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    config = read_consistency(Path(sys.argv[1]))
    policy, tokenizer = open_model(config.checkpoint)
    torch.manual_seed(0)
    reference = frozen_copy(policy, train_vision=False)
    add_low_connector(policy)
    for part in (policy.connector_low, policy.connector_high, policy.language_model):
        part.requires_grad_(True)
    policy.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    pair = PolicyAndReference(policy, reference, chunk=5).eval()  # without dropout
    data = Data(config, policy.config, tokenizer, Alone())
    with data.batches(0) as steps:
        pictures = [batch for _ in range(2) for batch in next(steps).micro_batches]
    words = collate([data.blank, data.blank], data.blank)
    plain = copy.deepcopy(pair)
    for module in pair.modules():
        if type(module).__name__ in ("Qwen3DecoderLayer", "InternVLVisionLayer"):
            fully_shard(module)
    fully_shard(pair)
    for batches in ((pictures[0], pictures[1]), (pictures[2], words), (words, pictures[3])):
        expected = [losses(plain, batch) for batch in batches]
        torch.testing.assert_close(losses(pair, batches[rank]), expected[rank], atol=1e-6, rtol=1e-5)
    whole = dict(plain.named_parameters())
    for name, parameter in pair.named_parameters():
        if parameter.requires_grad:
            # FSDP takes the mean over the processes.
            torch.testing.assert_close(parameter.grad.full_tensor(), whole[name].grad / 2, atol=1e-6, rtol=1e-4)
    sys.stdout.write(f"process {rank}: alike\n")


if __name__ == "__main__":
    main()
