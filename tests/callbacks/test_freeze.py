import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hsl.callbacks.freeze import Freeze, freeze
from hsl.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*")


class Task(lightning.LightningModule):
    """A network with a batch norm and dropout in the part that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.network = nn.ModuleDict({"encoder": encoder, "heads": nn.ModuleDict({"a": nn.Linear(4, 1)})})
        self.modes: set[tuple[bool, bool]] = set()

    def training_step(self, batch: list[Tensor]) -> Tensor:
        self.modes.add((self.network["encoder"][1].training, self.network["heads"].training))
        return self.network["heads"]["a"](self.network["encoder"](batch[0])).square().mean()

    def validation_step(self, batch: list[Tensor]) -> None:
        self.network["encoder"](batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([one for one in self.parameters() if one.requires_grad], lr=0.1)


def fit(*modules: str) -> tuple[Task, dict[str, Tensor]]:
    """Two epochs, validated in the middle of each and at its end; and the state before."""
    torch.manual_seed(0)
    task, data = Task(), DataLoader(TensorDataset(torch.randn(16, 3)), batch_size=4)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, val_check_interval=2, callbacks=[Freeze(modules)], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(task, data, data)
    return task, before


def test_weights_and_buffers_stay_bitwise() -> None:
    task, before = fit("encoder")
    moved = {name for name, value in task.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"network.heads.a.weight", "network.heads.a.bias"}
    assert task.modes == {(False, True)}  # in every step, also behind a validation


def test_nothing_frozen_changes_everything() -> None:
    task, before = fit()
    assert not any(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert task.modes == {(True, True)}


def test_the_optimizer_is_made_behind_it() -> None:
    task, _ = fit("encoder.0", "heads.a")
    trained = {id(one) for group in task.trainer.optimizers[0].param_groups for one in group["params"]}
    assert trained == {id(one) for one in task.network["encoder"][1].parameters()}


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        (["encoder", "heads"], "something of the network to train"),
        ([""], "encoder, heads, heads.a"),
        (["heads.b"], "encoder, heads, heads.a.*Found `heads.b`"),
        (["network.encoder"], "`network.encoder`"),
    ],
)
def test_errors(modules: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        freeze(Task().network, modules)
