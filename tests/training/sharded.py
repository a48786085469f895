"""Run by `test_fsdp2` on two processes: what accelerate shards (FSDP2) computes the same losses.

The processes have other samples, and in turn only words, so that one would wait for ever for a part that the other
leaves out.
"""

import copy
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from vico_eval.training.config import read_consistency
from vico_eval.training.data.batches import collate, random_share
from vico_eval.training.data.samples import Data
from vico_eval.training.loop.accelerated import make_accelerator
from vico_eval.training.loop.schedule import optimizing
from vico_eval.training.models.opening import add_low_connector, open_model
from vico_eval.training.models.pair import PolicyAndReference, frozen_copy, round_weights


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


def check_gradients(pair, plain):
    """They are the mean over the processes, taken in float32; the plain model adds them up in bfloat16."""
    whole = dict(plain.named_parameters())
    is_rounded = []
    for name, parameter in pair.named_parameters():
        if parameter.requires_grad:
            found, wanted = parameter.grad.full_tensor(), whole[name].grad.float() / 2
            assert float((found - wanted).norm()) <= 0.02 * float(wanted.norm()), name
            if "layers" in name:  # both processes have gradients of these, whether they have pictures or not
                is_rounded.append((found == found.bfloat16()).flatten())
    # The mean of two numbers in bfloat16 is one by chance alone.
    assert torch.cat(is_rounded).float().mean() < 0.8, "gradients were reduced in bfloat16"


def main():
    PartialState(cpu=True).distributed_type = DistributedType.MULTI_GPU  # accelerate shards on no other processes
    config = read_consistency(Path(sys.argv[1]))
    accelerator = make_accelerator(config)
    policy, tokenizer = open_model(config.checkpoint)
    torch.manual_seed(0)
    reference = frozen_copy(policy, train_vision=False, dtype=torch.bfloat16)
    for weight in policy.language_model.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
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
    round_weights(plain, torch.bfloat16)
    rank = accelerator.process_index
    pair, _ = accelerator.prepare(pair, *optimizing(pair, config.train).optimizers)
    for batches in ((pictures[0], pictures[1]), (pictures[2], words), (words, pictures[3])):
        plain.zero_grad()
        pair.zero_grad()
        expected = [losses(plain, batch) for batch in batches]
        found = losses(pair, batches[rank])
        torch.testing.assert_close(found, expected[rank], atol=1e-6, rtol=0)
        assert not torch.equal(found, found.bfloat16().float()), "losses were rounded to bfloat16"
        check_gradients(pair, plain)
    sys.stdout.write(f"process {rank}: alike\n")


if __name__ == "__main__":
    main()
