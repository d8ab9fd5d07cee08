"""The peer of a benchmark: plain torch, in its own environment, doing what the parent process asks over a pipe.

One JSON object a line comes in and one goes out; between requests this process waits for its standard input. See
`cnn_jax/benchmark/worker.py`, which answers the same requests with JAX.
"""

import json
import sys
import time
from collections.abc import Callable

import torch
import torch_networks
from torch.nn import functional


def prepare(case: dict, mode: str, variant: str, *, device: str, autocast: bool) -> Callable[[], object]:
    """A function that does one step of a case.

    Args:
      case: as `cnn_jax.benchmark.cases.Case` has it, from JSON.
      mode: "train" (forward, loss, backward, update) or "forward".
      variant: "eager", "channels_last", or "compiled" (channels last too).
      device: "cpu" or "cuda".
      autocast: compute in bfloat16 where autocast does.
    """
    torch.manual_seed(0)
    network = build(case)
    layout = torch.contiguous_format if variant == "eager" else torch.channels_last
    network = network.to(device, memory_format=layout).train(mode == "train")
    height, width, channels = case["image"]
    images = torch.randint(0, 256, (case["batch_size"], channels, height, width), dtype=torch.uint8)
    images = images.to(device, memory_format=layout)
    labels = torch.randint(0, case["num_classes"], (case["batch_size"],)).to(device)
    # [C] -> [1, C, 1, 1]; one number serves all channels
    mean, std = (torch.tensor(case[name]).reshape(1, -1, 1, 1).to(device) for name in ("mean", "std"))

    def logits(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            return network((images.float() / 255.0 - mean) / std)

    if mode == "forward":
        run = torch.compile(logits) if variant == "compiled" else logits

        def forward() -> torch.Tensor:
            with torch.inference_mode():
                return run(images)

        return forward

    def loss(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits(images).float(), labels)

    compute = torch.compile(loss) if variant == "compiled" else loss
    optimizer = torch.optim.SGD(network.parameters(), lr=case["learning_rate"], momentum=case["momentum"])

    def train() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = compute(images, labels)
        value.backward()
        optimizer.step()
        return value.detach()

    return train


def timed(run: Callable[[], object], steps: int) -> float:
    """Seconds of so many steps, until the device has done them."""
    started = time.perf_counter()
    for _ in range(steps):
        run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def build(case: dict) -> torch.nn.Module:
    """The network of a case."""
    channels = case["image"][-1]
    return torch_networks.build(
        case["model"], num_classes=case["num_classes"], in_channels=channels, **case["peer_arguments"]
    )


def main() -> None:
    """Answer requests until the standard input ends."""
    prepared: dict[str, Callable[[], object]] = {}
    torch.set_num_threads(int(sys.argv[1]))
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict = {}
        if request["do"] == "describe":
            network = build(request["case"])
            answer["parameters"] = sum(parameter.numel() for parameter in network.parameters())
            answer["batch_size"] = answer["examples"] = request["case"]["batch_size"]
            answer["versions"] = {"torch": torch.__version__}
            answer["variants"] = ["eager", "channels_last", "compiled"]
        elif request["do"] == "prepare":
            started = time.perf_counter()
            where = {name: request[name] for name in ("device", "autocast")}
            run = prepare(request["case"], request["mode"], request["variant"], **where)
            timed(run, request["warm_up"])
            prepared[request["variant"]] = run
            answer["seconds"] = time.perf_counter() - started
        else:
            answer["seconds"] = timed(prepared[request["variant"]], request["steps"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
