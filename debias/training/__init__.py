"""Fine-tuning of multimodal models against social bias, on transformers' Trainer, accelerate and PEFT.

The face is light: ask for the parts by name; nothing here loads torch.
"""
