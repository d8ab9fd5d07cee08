"""Convert weights between torch's names and ours; both ways are exact, and what does not fit the model is refused.

Example:
  python experiments/convert.py --model=resnet50 --input=resnet50-11ad3fa6.pth --output=resnet50.safetensors
"""

import json
from collections.abc import Sequence
from typing import Any

from cnn_jax import command
from cnn_jax.errors import UserError
from cnn_jax.paths import expanded

SUFFIX = ".safetensors"
RESERVED = {"model", "name", "path_or_name", "state", "variables", "num_classes", "in_channels", "new_head"}
"""What `--arguments` cannot say: the other options and the weights do."""


def main(arguments: Sequence[str]) -> int:
    """Read, convert, write, and say what was written."""
    parser = command.Parser("Convert weights between torch's names and layout and those of our Flax modules.")
    parser.add_argument("--model", required=True, help="for example resnet50")
    parser.add_argument(
        "--input",
        required=True,
        metavar="FILE_OR_NAME",
        help=".safetensors with torch's names or ours, .pth, or published weights such as resnet50.IMAGENET1K_V2",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="a new .safetensors file")
    parser.add_argument("--to", choices=("flax", "torch"), default="flax", help="whose names; default: flax")
    parser.add_argument("--arguments", default="{}", metavar="JSON", help="of the model: '{\"auxiliary\": true}'")
    known = parser.parse_args(arguments)
    output = expanded(known.output)
    if output.suffix != SUFFIX:
        raise UserError(f"--output={known.output} must end with {SUFFIX}")
    if output.exists():
        raise UserError(f"--output={known.output} is already there; remove it, or give another name")
    others = model_arguments(known.arguments)
    from flax import traverse_util  # after the arguments are known to be good: these start JAX

    from cnn_jax import weights
    from cnn_jax.weights import files
    from cnn_jax.weights.load import ORIGIN, published

    variables = weights.load(known.model, known.input, **others)
    if known.to == "flax":
        arrays: dict[str, Any] = traverse_util.flatten_dict(variables, sep="/")
    else:
        arrays = weights.to_torch(known.model, variables, **others)
    # "pt" is what other libraries expect of torch's names.
    metadata = {"format": "flax" if known.to == "flax" else "pt", "model": known.model}
    entry = published(known.model, known.input)
    if entry is not None:
        metadata[ORIGIN] = entry.name
    files.write_safetensors(output, arrays, metadata=metadata)
    numbers = sum(array.size for array in arrays.values())
    print(f"wrote {output}: {len(arrays)} arrays of {numbers:,} numbers, {known.to} names")
    return 0


def model_arguments(text: str) -> dict[str, Any]:
    """What `--arguments` says.

    Raises:
      UserError: it is no JSON object, or says what other options or the weights say.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"--arguments={text} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f'--arguments={text} must be a JSON object such as {{"auxiliary": true}}')
    reserved = sorted(RESERVED & set(found))
    if reserved:
        raise UserError(f"--arguments={text} must not say {', '.join(reserved)}: the other options and the weights do")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}


if __name__ == "__main__":
    command.run(main)
