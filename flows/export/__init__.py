"""Other layouts of a dataset: for the hub, for chat fine-tuning, for Megatron-Energon. No pixel is encoded again."""
