"""Pure functions that define each number, and thin ``torchmetrics`` states around them."""
