"""What is broken on purpose: one module per class of fault."""
