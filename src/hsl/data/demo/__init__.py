"""The painter of the demo images."""
