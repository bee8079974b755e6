import pytest

from hsl.data.arguments import check_arguments
from hsl.errors import ConfigError

GOOD = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}


@pytest.mark.parametrize(("size", "workers"), [(32, 0), ([32, 64], "auto"), (1, 3)])
def test_what_fits(size: int | list[int], workers: int | str) -> None:
    check_arguments(size, 1, workers, GOOD)


def test_all_findings_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        check_arguments([0, 1], 0, "many", {"mean": [0.5], "std": [0.2, 0.2, 0.2]})
    for name in ("image_size", "batch_size", "num_workers", "normalization.mean"):
        assert name in str(error.value)
    assert "normalization.std" not in str(error.value)
