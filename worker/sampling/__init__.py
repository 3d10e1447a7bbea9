"""From logits to tokens: penalties, filters, and draws that depend on (seed, position) and nothing else."""
