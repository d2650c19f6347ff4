"""The contract between applications and workers: messages, names, errors. See shared/CONTRACT.md."""
