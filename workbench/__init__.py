"""awq-workbench: which decoding settings and which LoRA adapter to use, with evidence."""
