"""The LightningModule and what it is optimised with."""
