"""LoRA adapters on one rank: read from PEFT's files, kept in host memory, copied into slots, applied by token."""
