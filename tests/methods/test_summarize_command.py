"""`experiments/summarize.py` from the outside: its table, its Markdown and its one-line errors."""

import importlib.util
import subprocess
import sys

import pytest

from cnn_jax.errors import UserError

# By hand, depth 8 and width 16: stem 176, stages 4,672 + 13,952 + 55,552, head 650.
PARAMETERS = 75_002


@pytest.fixture
def summarize(repository):
    def run(*arguments):
        command = [sys.executable, "experiments/summarize.py", "--config=configs/quickstart.py", *arguments]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture
def main(repository):
    """The command's `main` in this process."""
    spec = importlib.util.spec_from_file_location("summarize_command", repository / "experiments/summarize.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main([f"--config={repository}/configs/quickstart.py", *arguments])


def test_table_of_the_quickstart(summarize):
    result = summarize()
    assert (result.returncode, result.stderr) == (0, "")
    total = next(line.split() for line in result.stdout.splitlines() if line.split()[:1] == ["total"])
    assert total == ["total", "75,002", "100.0", "747,136", "100.0"]
    assert "resnet_cifar on sklearn/digits of 8×8×1" in result.stdout
    assert "480 statistics" in result.stdout


@pytest.mark.slow
def test_markdown_is_a_table(summarize):
    result = summarize("--markdown")
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line for line in result.stdout.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in cells} == {9}
    assert set(cells[1]) == {"---", "---:"}
    rows, total = cells[2:-1], cells[-1]
    assert sum(int(row[3].replace(",", "")) for row in rows) == int(total[3].strip("*").replace(",", "")) == PARAMETERS
    assert sum(int(row[5].replace(",", "")) for row in rows) == int(total[5].strip("*").replace(",", "")) == 747_136
    for column in (4, 6):
        # Each share is rounded to 0.1.
        assert abs(sum(float(row[column]) for row in rows) - 100) <= 0.05 * len(rows)
    assert rows[0][:3] == ["backbone/stem/conv", "Conv", "8×8×16"]
    assert rows[-1][-2:] == ["29×29", "–"]


def test_shape_instead_of_data(main, capsys):
    without_data = ("--config.data.source=tfds", "--config.data.name=cifar10", "--config.model.in_channels=3")
    assert main("--input=32,32,3", "--config.model.num_classes=7", *without_data) == 0
    assert "resnet_cifar on images of 32×32×3" in capsys.readouterr().out


@pytest.mark.slow
def test_unknown_model_is_one_line(summarize):
    result = summarize("--config.model.name=resnet_cifer")
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert "did you mean 'resnet_cifar'?" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--input=32,32,3",), "add --config.model.num_classes=10"),
        (("--input=32",), "--input=32,32,3"),
        (("--input=32,0,3",), "--input=32,32,3"),
        (("--input=32,32,3", "--config.model.num_classes=2"), "set model.in_channels=3"),
        (("--config.data.name=digitz",), "give the shape of an image with --input"),
    ],
)
def test_bad_input_says_what_to_do(main, arguments, message):
    with pytest.raises(UserError) as error:
        main(*arguments)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_help_fits_on_a_screen(summarize):
    result = summarize("--help")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) <= 24


@pytest.fixture
def named(repository):
    """The command's `main` in this process, without a config."""
    spec = importlib.util.spec_from_file_location("summarize_command", repository / "experiments/summarize.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_network_by_name_on_the_images_of_its_reference(named, capsys):
    assert named.main(["--model=squeezenet1_1"]) == 0
    output = capsys.readouterr().out
    assert "squeezenet1_1 on images of 224×224×3" in output
    assert "1,235,496" in output  # zoo.json


def test_a_network_by_name_takes_arguments_and_a_shape(named, capsys):
    assert named.main(["--model=lenet5", "--input=32,32,3", "--config.model.padding=0"]) == 0
    assert "62,006" in capsys.readouterr().out  # 61,706 of numbers.md and 5 · 5 · 2 · 6 for two more channels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=resent50"], "did you mean 'resnet50'"),
        (["--model=resnet18", "--config.model.widht=3"], "did you mean 'width'"),
        (["--model=resnet18", "--config.seed=3"], "with --model write --config.model.KEY=VALUE"),
        (["--model=alexnet", "--input=40,40,3"], "it takes at least 63×63"),
        (["--model=resnet18", "--store"], "--store keeps the table of --all"),
        (["--all", "--input=32,32,3"], "--all takes no --input"),
        (["--all", "--model=resnet18"], "not allowed with argument"),
        ([], "one of the arguments --config --model --all is required"),
    ],
)
def test_bad_arguments_of_a_network_by_name(arguments, message, named):
    with pytest.raises(UserError) as error:
        named.main(arguments)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_line_of_the_zoo(named):
    row = dict(zip(named.ZOO_COLUMNS, named.zoo_row("resnet18"), strict=True))
    assert row == {
        **{"network": "resnet18", "images": "224×224×3", "parameters": "11,689,512", "statistics": "9,600"},
        **{"GMACs": "1.814", "receptive field": "435×435", "stride": "32×32", "smallest image": "1"},
        **{"top-1": "69.76", "weights": "resnet18.IMAGENET1K_V1", "logits": "proven"},
    }


def test_the_zoo_as_markdown(named):
    lines = list(named.zoo_markdown([named.zoo_row("lenet5_1998"), named.zoo_row("resnet20")]))
    rows = [line for line in "\n".join(lines).splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert {row.count("|") for row in rows} == {len(named.ZOO_COLUMNS) + 1}
