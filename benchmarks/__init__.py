"""Speed and memory, always side by side with an installed peer or the plain way; run from the repository's root."""
